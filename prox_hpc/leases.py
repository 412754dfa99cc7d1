"""Leases: which of several tasks works on which block, by small files in a folder that all of them see.

A lease is a JSON file that gets its name by `os.link`, so one task takes it, and whose modification time its holder
renews while it lives. A dead task's lease can be taken over: by anybody when it was not renewed for `seconds`, or at
once when its process is known to be dead (it was on this machine), and at once by its own owner coming back on another
one (a job that Slurm requeued keeps its id). Leases save work and nothing else: two tasks that believe they hold the
same one compute the same block, and publishing it once (`prox_hpc.publish`) makes that harmless. So the rare races
left here are not closed: a task that was stopped for longer than `seconds` goes on with a block that another took.
"""

import json
import os
import socket
import sys
import threading
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from prox_hpc.publish import publish_json, temporary


def this_owner(index: int) -> str:
    """What task `index` of a step is called: by its Slurm job, which is the same after a requeue, or by its process."""
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    # The index, too: people start several tasks by hand within one allocation.
    return f"slurm {job} task {index}" if job else f"{socket.gethostname()}:{os.getpid()} task {index}"


class Leases:
    """Leases of one task: `with Leases(folder, owner, seconds) as leases`; leaving gives back what is still held.

    folder: made if absent; seen by all tasks. owner: `this_owner(index)`; no two living tasks have the same.
    seconds: a lease not renewed for so long is free; those held are renewed every quarter of it.
    Threads may share one object.
    """

    def __init__(self, folder: Path, owner: str, seconds: float):
        self.folder, self.owner, self.seconds = folder, owner, seconds
        self._held: dict[str, str] = {}  # name -> token, which tells this lease from every other
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._renewer = threading.Thread(target=self._renew_all, name="leases", daemon=True)
        self._clock = temporary(folder / "clock")

    def __enter__(self) -> "Leases":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._clock.touch()
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._renewer.join()
        for name in list(self._held):
            self.release(name)
        self._clock.unlink(missing_ok=True)

    def take(self, name: str) -> bool:
        """Whether the lease `name` is this task's now (also when it was before)."""
        with self._lock:
            if name in self._held:
                return True
            path = self._path(name)
            token = uuid.uuid4().hex
            mine = {"owner": self.owner, "token": token, "time": time.time(), **_process()}
            while True:
                found = _read(path)
                if found is None:
                    if publish_json(path, mine):
                        self._held[name] = token
                        return True
                elif not self._is_free(path, found):
                    return False
                else:
                    self._clear(path, found)

    def release(self, name: str) -> None:
        """Give a lease back; nothing happens when it is not held (any more)."""
        with self._lock:
            token = self._held.pop(name, None)
            path = self._path(name)
            if token is not None and (_read(path) or {}).get("token") == token:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _is_free(self, path: Path, found: dict[str, Any]) -> bool:
        if found.get("machine") == _machine():
            if _started(found["pid"]) != found["started"]:
                return True
        elif found.get("owner") == self.owner:
            return True
        # Nodes' clocks differ, so both times are the filesystem's.
        self._clock.touch()
        try:
            return self._clock.stat().st_mtime - path.stat().st_mtime > self.seconds
        except FileNotFoundError:  # given back just now
            return True

    def _clear(self, path: Path, judged: dict[str, Any]) -> None:
        """Remove a lease that was judged to be free; a fresh one, put there in between, is put back."""
        aside = temporary(path)
        with suppress(FileNotFoundError):  # somebody else removed it
            os.rename(path, aside)
            if _read(aside) != judged:
                with suppress(FileExistsError):  # taken by a third one meanwhile: two hold it, see above
                    os.link(aside, path)
            aside.unlink()

    def _renew_all(self) -> None:
        while not self._over.wait(self.seconds / 4):
            with self._lock:
                for name, token in list(self._held.items()):
                    try:
                        self._renew(name, token)
                    except OSError as error:  # the filesystem may come back before the lease has expired
                        print(f"{self._path(name)}: cannot be renewed: {error}", file=sys.stderr)

    def _renew(self, name: str, token: str) -> None:
        path = self._path(name)
        found = _read(path)
        if found is None or found.get("token") != token:
            del self._held[name]  # we were silent for too long and another took it
            holder = found.get("owner") if found else "nobody"
            print(f"{path}: was not renewed in time; its holder is {holder} now", file=sys.stderr)
        else:
            os.utime(path)


def _read(path: Path) -> dict[str, Any] | None:
    """A lease's content; None when there is none; {}, which only ever expires, for a damaged one."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@cache
def _machine() -> str:
    """Names the machine since it booted and the process namespace: where a pid means the same process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _process() -> dict[str, Any]:
    """What identifies this process, and for people the host."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": _machine(), "pid": pid, "started": _started(pid)}


def _started(pid: int) -> int | None:
    """When a living process started, in clock ticks since boot; None when it is dead (or a zombie)."""
    try:
        # "pid (name) state ppid ...": the name may hold anything, so count from its end; the start is field 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
