"""How fast a refine task runs and what it waits for: a line of JSON every few seconds, and figures for the status view.

The parts of the engine tell how long they waited (`with telemetry.waiting("room")`), the pool how much it has asked and
answered; rates are differences between two looks.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVERY_S = 5.0
"""Between two lines."""

PARTS = ("read", "room", "answers")
"""Who waits: the feeder for documents of the corpus, and for room in the pipe (as it must where the servers are the
limit); the writers for the servers' answers."""


@dataclass(frozen=True)
class Peak:
    """What the devices could do. tflops: of one device; parameters: of the model (2 FLOPs each for a token)."""

    tflops: float
    devices: int
    parameters: int

    def share(self, input_tokens_per_second: float) -> float:
        """Share of the prefill roofline: tokens/s over those the devices could read at their peak (2N per token)."""
        return input_tokens_per_second * 2 * self.parameters / (self.tflops * 1e12 * self.devices)


@dataclass
class Telemetry:
    """Counters of one task since its servers were ready.

    documents: written. waited: seconds by part. peak: None where the device's peak is not known.
    """

    path: Path
    peak: Peak | None = None
    documents: int = 0
    waited: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    started: float = field(default_factory=time.monotonic)
    _last: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def waiting(self, part: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.waited[part] += time.monotonic() - begun

    def look(self, pool: Mapping[str, float], queues: Mapping[str, int]) -> dict[str, Any]:
        """Sums since the start. pool: `Pool.figures()`; queues: documents or requests that wait in each part now."""
        return {
            "seconds": time.monotonic() - self.started,
            "documents": self.documents,
            "pool": dict(pool),
            "waited": {part: self.waited[part] for part in PARTS},
            "queues": dict(queues),
        }

    def rates(self, now: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, float]:
        """Rates between two looks (before: None for the start)."""
        then = before or {"seconds": 0.0, "documents": 0, "pool": {}}
        seconds = max(now["seconds"] - then["seconds"], 1e-9)
        found = {"documents_per_second": (now["documents"] - then["documents"]) / seconds}
        for kind in ("input_tokens", "cached_tokens", "output_tokens"):
            difference = now["pool"].get(kind, 0) - then["pool"].get(kind, 0)
            found[f"{kind}_per_second"] = difference / seconds
        if self.peak is not None:
            read = found["input_tokens_per_second"] - found["cached_tokens_per_second"]
            found["prefill_roofline"] = self.peak.share(read)
        return found

    def write(self, now: Mapping[str, Any]) -> dict[str, float]:
        """Append a line: the look, with the rates since the last line; returns these rates."""
        rates = self.rates(now, self._last or None)
        self._last = dict(now)
        line = {"time": time.time(), **rates, **now}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return rates

    def between(self, now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        """For a block's manifest: rates and waiting times from its first document read to its last one written."""
        waited = {part: now["waited"][part] - before["waited"][part] for part in PARTS}
        idle = now["pool"].get("idle_s", 0.0) - before["pool"].get("idle_s", 0.0)
        return {**self.rates(now, before), "waited": waited, "servers_idle_s": idle, "limit": now["pool"].get("limit")}
