"""The local backend: runs a study's DAG on this machine with bounded concurrency.

Plain worker processes, not submitit's local executor, which starts everything at once, ignores dependencies and
orphans its tasks on an interrupt. A task takes `processes * cpus` slots of `cluster.slots`. Tasks of an `early` step
begin while the step before still runs, once what they need is there. A failed task stops what depends on it and nothing
else; the report runs whatever happened. Tasks die with the launcher (PR_SET_PDEATHSIG), and launching again does what
is missing.
"""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from prox_hpc.cluster.early import may_begin
from prox_hpc.config import Cluster
from prox_hpc.study.plan import Plan
from prox_hpc.study.store import forget_failures, is_published, state_dir, task_states, write_step
from prox_hpc.task import Step, Task

POLL_S = 0.2
PR_SET_PDEATHSIG = 1


@dataclass
class StepRun:
    """A step as the scheduler sees it."""

    step: Step
    state: str = "waiting"  # waiting | elsewhere | ready | running | reused | done | failed | blocked
    next_index: int = 0
    running: dict[int, "Group"] = field(default_factory=dict)
    sealing: "Group | None" = None
    failed_tasks: list[int] = field(default_factory=list)
    started: float | None = None
    ended: float | None = None
    lock: IO[str] | None = None

    @property
    def over(self) -> bool:
        return self.state in ("reused", "done", "failed", "blocked")


class Group:
    """The processes of one task (one per rank): all must succeed; the first that fails takes the others along."""

    def __init__(self, command: list[str], ranks: int, log: Path, environment: dict[str, str]):
        log.parent.mkdir(parents=True, exist_ok=True)
        port = str(free_port())
        self.log = log
        self.processes: list[subprocess.Popen[bytes]] = []
        for rank in range(ranks):
            ranked = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            ranked |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            path = log if rank == 0 else log.with_suffix(f".rank{rank}.log")
            with path.open("ab") as output:
                self.processes.append(
                    subprocess.Popen(
                        command,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.DEVNULL,
                        env={**environment, **ranked},
                        start_new_session=True,
                        preexec_fn=_die_with_parent,
                    )
                )

    def poll(self) -> int | None:
        """None while running, else 0 or the first non-zero exit status."""
        codes = [process.poll() for process in self.processes]
        bad = [code for code in codes if code]
        if bad:
            self.kill()
            return bad[0]
        return None if None in codes else 0

    def kill(self) -> None:
        """End every process of every rank, whole process groups, first politely."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes:
                with suppress(ProcessLookupError):  # the group is gone already
                    os.killpg(process.pid, sign)
            deadline = time.time() + 10
            while time.time() < deadline and any(process.poll() is None for process in self.processes):
                time.sleep(0.05)


def _die_with_parent() -> None:
    ctypes.CDLL("libc.so.6", use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalRun:
    """One study on this machine; `run(tick)` blocks until it is over and calls `tick` several times a second."""

    def __init__(self, plan: Plan, store: Path, cluster: Cluster):
        self.store = store
        self.cluster = cluster
        self.runs = {step.address: StepRun(step) for step in plan}
        self.full = False  # a step further up the plan waits for slots: nothing after it may take them

    def run(self, tick: Callable[["LocalRun"], None]) -> bool:
        """-> whether every step succeeded. Ctrl-C ends the running tasks and raises KeyboardInterrupt."""
        try:
            while not all(run.over for run in self.runs.values()):
                self.full = False
                for run in self.runs.values():
                    self._advance(run)
                tick(self)
                time.sleep(POLL_S)
            tick(self)
        finally:
            for run in self.runs.values():
                for group in [*run.running.values(), *([run.sealing] if run.sealing else [])]:
                    group.kill()
        return all(run.state in ("done", "reused") for run in self.runs.values())

    def _advance(self, run: StepRun) -> None:
        if run.over:
            return
        if run.state == "waiting":
            self._try_start(run)
        if run.state == "elsewhere":
            self._try_lock(run)
        if run.state == "running":
            self._collect(run)
        if run.state in ("ready", "running"):
            self._start_tasks(run)
            if not run.running and self._lost_input(run):
                self._end(run, "blocked")

    def _try_start(self, run: StepRun) -> None:
        if is_published(self.store, run.step):
            run.state = "reused"
            return
        if run.step.always:
            others = [other for other in self.runs.values() if other is not run]
            if all(other.over for other in others):
                self._try_lock(run)
        elif self._lost_input(run):
            run.state = "blocked"
        elif self._may_begin(run, 0):
            self._try_lock(run)

    def _inputs(self, run: StepRun) -> list[StepRun]:
        return [self.runs[address] for address in run.step.inputs.values() if address in self.runs]

    def _lost_input(self, run: StepRun) -> bool:
        return not run.step.always and any(item.state in ("failed", "blocked") for item in self._inputs(run))

    def _may_begin(self, run: StepRun, index: int) -> bool:
        """Whether a task's inputs are there; of an early step's, the part that it needs."""
        unfinished = [item for item in self._inputs(run) if item.state not in ("done", "reused")]
        if not unfinished or run.step.always:
            return True
        return all(item.state == "running" for item in unfinished) and may_begin(Task(run.step, index, self.store))

    def _try_lock(self, run: StepRun) -> None:
        """One launcher works on a step at a time; another study that needs it waits for its artifact."""
        path = write_step(self.store, run.step).with_name("lock")
        handle = path.open("a")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            run.state = "elsewhere"
            return
        if is_published(self.store, run.step):
            run.state = "reused"
            handle.close()
            return
        for old in (state_dir(self.store, run.step) / "tasks").glob("*.json"):
            old.unlink()  # the statuses of an earlier attempt are not this one's
        forget_failures(self.store, run.step)
        run.lock, run.state = handle, "ready"

    def _slots(self, run: StepRun) -> int:
        return min(self.cluster.slots, run.step.processes * self.cluster.ask(run.step.kind).cpus)

    def _busy(self) -> int:
        return sum(self._slots(run) * (len(run.running) + (run.sealing is not None)) for run in self.runs.values())

    def _start_tasks(self, run: StepRun) -> None:
        while run.next_index < run.step.tasks and not run.failed_tasks and self._may_begin(run, run.next_index):
            if self.full or self._busy() + self._slots(run) > self.cluster.slots:
                self.full = True
                return
            run.state, run.started = "running", run.started or time.time()
            index = run.next_index
            run.running[index] = self._group(run, str(index), run.step.processes)
            run.next_index += 1

    def _group(self, run: StepRun, what: str, ranks: int) -> Group:
        folder = state_dir(self.store, run.step)
        python = self.cluster.python or sys.executable
        threads = self.cluster.ask(run.step.kind).cpus
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **self.cluster.environment}
        command = [python, "-m", "prox_hpc.worker", str(folder / "step.json"), what]
        return Group(command, ranks, folder / "logs" / f"{what}.log", environment)

    def _collect(self, run: StepRun) -> None:
        for index, group in list(run.running.items()):
            code = group.poll()
            if code is not None:
                del run.running[index]
                if code:
                    run.failed_tasks.append(index)
        if run.running or (run.next_index < run.step.tasks and not run.failed_tasks):
            return
        if run.step.tasks > 1 and not run.failed_tasks:
            if run.sealing is None:
                run.sealing = self._group(run, "seal", 1)
                return
            code = run.sealing.poll()
            if code is None:
                return
            run.sealing = None
            self._end(run, "failed" if code else "done")
        else:
            self._end(run, "failed" if run.failed_tasks else "done")

    def _end(self, run: StepRun, state: str) -> None:
        run.state, run.ended = state, time.time()
        if run.lock:
            run.lock.close()

    def failure(self, run: StepRun) -> str:
        """Why a step failed, in a line or two, with the log to read."""
        logs = state_dir(self.store, run.step) / "logs"
        index = run.failed_tasks[0] if run.failed_tasks else None
        log = logs / (f"{index}.log" if index is not None else "seal.log")
        status = task_states(self.store, run.step)[index] if index is not None else {}
        error = status.get("error") if status.get("state") == "failed" else None
        return f"{error or _last_line(log) or 'the task died without a word'}\n  log: {log}"


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else ""
