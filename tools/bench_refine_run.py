"""One refine step run as a cluster would run it (`python -m prox_hpc.worker STEP.json 0`) and watched from outside.

Time counts from when the task has found its servers ready (its telemetry's beginning; the peers' time begins there as
well) to the last published block, so loading Python, weights and kernels is left out and reading, tokenising, asking,
executing, writing and publishing are in. Processor time is sampled from /proc apart for the task's own processes and
for its servers'; a sample of the tree takes about a millisecond, four times a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_programs import spread
from bench_refine_profile import summed

from prox_hpc.publish import replace_json
from prox_hpc.task import Step, Task

SERVERS = ("sglang", "echo_server")
SAMPLED_S = 0.25
PROFILER = Path(__file__).with_name("bench_refine_profile.py")


@dataclass(frozen=True)
class Ran:
    """A finished step. seconds: from ready to done. cpu: processor seconds in that time, by `task` and `server`."""

    seconds: float
    started_s: float
    cpu: dict[str, float]
    peak_mb: dict[str, float]
    summary: dict[str, Any]
    out: Path
    telemetry: list[dict[str, Any]] = field(default_factory=list)
    profile: dict[str, Any] | None = None


@dataclass
class _Watch:
    """Samples of a process tree: (time, processor seconds by kind)."""

    pid: int
    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    peak: dict[str, float] = field(default_factory=dict)
    ended: dict[int, tuple[str, float]] = field(default_factory=dict)

    def sample(self) -> None:
        import psutil

        memory: dict[str, float] = {}
        kinds: dict[int, str] = {}
        try:
            root = psutil.Process(self.pid)
            members = [root, *root.children(recursive=True)]  # parents before their children
        except psutil.NoSuchProcess:
            return
        for member in members:
            try:
                kinds[member.pid] = kind = self._kind(member, kinds)
                times = member.cpu_times()
                memory[kind] = memory.get(kind, 0.0) + member.memory_info().rss / 1e6
                self.ended[member.pid] = (kind, times.user + times.system)
            except psutil.Error:
                continue  # it ended meanwhile; what it had used was noted last time
        total: dict[str, float] = {}
        for kind, seconds in self.ended.values():
            total[kind] = total.get(kind, 0.0) + seconds
        self.samples.append((time.time(), total))
        self.peak = {kind: max(memory.get(kind, 0.0), self.peak.get(kind, 0.0)) for kind in {*memory, *self.peak}}

    def _kind(self, member: Any, kinds: dict[int, str]) -> str:
        parent = kinds.get(member.ppid(), "task")
        return "server" if parent == "server" or any(s in " ".join(member.cmdline()) for s in SERVERS) else "task"

    def between(self, begin: float, end: float) -> dict[str, float]:
        """Processor seconds by kind, interpolated between samples."""
        kinds = self.samples[-1][1] if self.samples else {}
        return {kind: round(self._at(end, kind) - self._at(begin, kind), 3) for kind in kinds}

    def _at(self, moment: float, kind: str) -> float:
        place = bisect_left([when for when, _ in self.samples], moment)
        if place in (0, len(self.samples)):
            return self.samples[min(place, len(self.samples) - 1)][1].get(kind, 0.0)
        (t0, before), (t1, after) = self.samples[place - 1 : place + 1]
        low, high = before.get(kind, 0.0), after.get(kind, 0.0)
        return low + (high - low) * (moment - t0) / (t1 - t0)


def make_step(name: str, refiner: dict[str, Any], serve: dict[str, Any], source: dict[str, Any], stages: str) -> Step:
    """A refine step over `source`; stages: `doc`, `chunk` or `both`."""
    config = {
        "refiner": refiner,
        "doc_stage": stages != "chunk",
        "chunk_stage": stages != "doc",
        "program_all": False,
        "source": source,
    }
    return Step("refine", name, config, runtime={"serve": serve})


def run_step(step: Step, store: Path, profile: bool = False) -> Ran:
    """Run the step's only task in a fresh store; RuntimeError with its last lines when it fails."""
    task = Task(step, 0, store)
    if task.out.exists():
        raise RuntimeError(f"{task.out}: exists already; every run needs a store of its own")
    step_file = task.state / "step.json"
    replace_json(step_file, step.to_json())
    samples = task.state / "profile.samples"
    command = [sys.executable, str(PROFILER), str(samples)] if profile else [sys.executable, "-m", "prox_hpc.worker"]
    log = task.state / "bench.out"
    with log.open("wb") as output:
        started = time.time()
        process = subprocess.Popen([*command, str(step_file), "0"], stdout=output, stderr=subprocess.STDOUT)
        watch = _Watch(process.pid)
        try:
            _follow(process, watch)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        raise RuntimeError(f"the refine step failed; see {log}:\n" + "\n".join(_tail(log)))
    telemetry = _telemetry(task)
    ready = min(line["time"] - line["seconds"] for line in telemetry)
    end = max(path.stat().st_mtime_ns for path in (task.out / "blocks").glob("*.json")) / 1e9
    summary = json.loads((task.out / "artifact.json").read_text())["summary"]
    peak = {kind: round(value, 1) for kind, value in watch.peak.items()}
    return Ran(
        end - ready,
        ready - started,
        watch.between(ready, end),
        peak,
        summary,
        task.out,
        telemetry,
        summed(samples, ready, end) if profile else None,
    )


def _follow(process: subprocess.Popen[bytes], watch: _Watch) -> None:
    """Watch the process to its end."""
    while process.poll() is None:
        watch.sample()
        time.sleep(SAMPLED_S)


def _telemetry(task: Task) -> list[dict[str, Any]]:
    """The last line of every file of the task's telemetry."""
    files = sorted((task.state / "telemetry").glob("*.jsonl"))
    return [json.loads(lines[-1]) for file in files if (lines := file.read_text().splitlines())]


def _tail(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-30:]


def cores(wanted: int) -> list[int]:
    """Keep this process and its children to so many cores; -> those cores."""
    mine = sorted(os.sched_getaffinity(0))[:wanted]
    os.sched_setaffinity(0, mine)
    return mine


def alternating(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Call each side once a round, in the opposite order every other round."""
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(sides[name]())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Spread of the ratio, round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)], 3)
