"""Stalled ranks: every rank shows its pulse, and a run that stands still ends with the name of the one to look at.

A rank that hangs (a dead node, a filesystem that does not answer, a broken link) leaves the others waiting in a
collective, where torch can say that they waited and not for whom. So each rank has a thread that writes where the rank
is (a small file, renewed every few seconds), and ends the process when it has been there for longer than
`training.stall_timeout_s`. All ranks pass the same places in the same order, so whoever has passed fewer is behind; and
a rank whose file is not renewed is dead, or its node is.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from prox_hpc.publish import replace_json
from prox_hpc.task import Task

BEAT_S = 10.0
"""A pulse is renewed so often, or five times in the timeout; without one for three times as long a rank is silent."""


@dataclass(frozen=True)
class Pulse:
    """passed: places passed so far. doing, step: the present one. where: host and process. age: seconds since shown."""

    passed: int
    doing: str
    step: int
    where: str
    age: float


def suspects(pulses: Mapping[int, Pulse], world_size: int, silent_s: float) -> str:
    """Which ranks the others wait for, in words."""
    told = [f"rank {rank} is not there" for rank in range(world_size) if rank not in pulses]
    silent = {rank: pulse for rank, pulse in pulses.items() if pulse.age > silent_s}
    told += [
        f"rank {rank} ({p.where}) has shown no sign of life for {p.age:.0f} s, while {p.doing} of step {p.step}"
        for rank, p in silent.items()
    ]
    if told:
        return "; ".join(told)
    furthest = max(pulse.passed for pulse in pulses.values())
    behind = {rank: pulse for rank, pulse in pulses.items() if pulse.passed < furthest}
    if behind:
        return "; ".join(f"rank {rank} ({p.where}) is behind, {p.doing} of step {p.step}" for rank, p in behind.items())
    return "no rank is behind the others, so it is what they all wait for: the network, a device, the filesystem"


class Watch:
    """The pulse of this rank; `at` says where it is. Ends the process when it stays there for too long."""

    def __init__(self, folder: Path, task: Task, timeout_s: float) -> None:
        self.folder, self.task, self.timeout_s = folder, task, timeout_s
        self.every = min(BEAT_S, timeout_s / 5)
        self._place: tuple[int, str, int] = (0, "the start", 0)
        self._since = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._show()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._path(self.task.rank).unlink(missing_ok=True)

    def at(self, doing: str, step: int) -> None:
        """This rank begins something that must end in time (`reading data`, `computing` ...)."""
        self._place = (self._place[0] + 1, doing, step)
        self._since = time.monotonic()

    def _show(self) -> None:
        passed, doing, step = self._place
        where = f"{socket.gethostname()}, process {os.getpid()}"
        replace_json(self._path(self.task.rank), {"passed": passed, "doing": doing, "step": step, "where": where})

    def _path(self, rank: int) -> Path:
        return self.folder / f"{rank:05d}.json"

    def _look(self) -> None:
        # rank 0 first: the task's status is its to write, and a launcher ends all ranks when one has ended
        allowed = self.timeout_s + (2 * self.every if self.task.rank else 0)
        while not self._over.wait(self.every):
            self._show()
            waited = time.monotonic() - self._since
            if waited > allowed:
                self._end(waited)

    def _end(self, waited: float) -> None:
        _, doing, step = self._place
        found = suspects(self._pulses(), self.task.world_size, 3 * self.every)
        message = (
            f"training stalled: {doing} of step {step} has taken {waited:.0f} s, training.stall_timeout_s="
            f"{self.timeout_s:g}: {found}; look at that node (cluster.sbatch={{exclude: NODE}} leaves it out) and "
            "launch again, which goes on from the last saved state; raise training.stall_timeout_s if it may take so "
            "long"
        )
        self.task.report("failed", error=message)
        print(f"error: {message}", file=sys.__stderr__, flush=True)  # stderr may be redirected just now
        os._exit(1)  # the main thread is inside a collective, which nothing interrupts

    def _pulses(self) -> dict[int, Pulse]:
        """Of all ranks that showed one; ages by the filesystem's clock, against this rank's own file."""
        now = self._path(self.task.rank).stat().st_mtime
        found = {}
        for rank in range(self.task.world_size):
            path = self._path(rank)
            with suppress(FileNotFoundError):  # it never came, or has ended
                shown: dict[str, Any] = json.loads(path.read_text())
                found[rank] = Pulse(**shown, age=now - path.stat().st_mtime)
        return found
