"""Run one task under a sampling profiler of all its threads: `python bench_refine_profile.py OUT.jsonl STEP.json 0`.

A thread looks at all other threads' stacks a hundred times a second and counts, for each thread, the function on top
(`self`) and the project's own function nearest to the top (`ours`); a line of JSON every half a second, so that whoever
reads it can leave out the start-up (`summed`). It cannot see code that holds the lock of the interpreter, nor work in
child processes; it costs about 2 %. Threads that wait are counted too: look for `select`, `wait`, `_worker`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

HERTZ = 100
LINE_S = 0.5
SHOWN = 20


class Sampler(threading.Thread):
    """Counts (thread name, function) until the process ends."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True, name="sampler")
        self.path = path
        self.counts: dict[str, Counter[str]] = {"self": Counter(), "ours": Counter()}

    def run(self) -> None:
        with self.path.open("w", buffering=1) as file:
            while True:
                began = time.time()
                self.counts = {"self": Counter(), "ours": Counter()}
                samples = 0
                while time.time() < began + LINE_S:
                    time.sleep(1 / HERTZ)
                    self._sample()
                    samples += 1
                file.write(json.dumps({"began": began, "samples": samples, **self.counts}) + "\n")

    def _sample(self) -> None:
        names = {thread.ident: thread.name.split("_")[0] for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            if ident != self.ident:
                self._count(names.get(ident, "?"), frame)

    def _count(self, thread: str, frame: FrameType) -> None:
        self.counts["self"][f"{thread}: {_name(frame)}"] += 1
        nearest: FrameType | None = frame
        while nearest is not None and "prox_hpc" not in nearest.f_code.co_filename:
            nearest = nearest.f_back
        if nearest is not None:
            self.counts["ours"][f"{thread}: {_name(nearest)}"] += 1


def summed(path: Path, begin: float, end: float) -> dict[str, Any]:
    """Shares of the samples between two times in percent, the greatest first; a pool of threads may have over 100."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line for line in lines if begin <= line["began"] <= end]
    samples = sum(line["samples"] for line in lines)
    shares: dict[str, Any] = {"samples": samples}
    for kind in ("self", "ours"):
        total: Counter[str] = Counter()
        for line in lines:
            total.update(line[kind])
        shares[kind] = {name: round(100 * n / samples, 1) for name, n in total.most_common(SHOWN)}
    return shares


def _name(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{frame.f_code.co_qualname}"


def main() -> int:
    from prox_hpc.cluster.worker import main as run

    Sampler(Path(sys.argv[1])).start()
    return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
