"""Steps and tasks: what a step is as plain data, and what a running task of it sees.

A step is a node of the study's DAG and becomes one Slurm array; a task is one element of it. A step is wholly
described by JSON (kind, configuration, inputs), so a task can be run by hand, with no scheduler, from its file. The
code of a kind lives in the module that `prox_hpc.cluster.worker` names for it: `run(task)` computes, and
`seal(task) -> dict` (optional) checks the products of all tasks and returns the summary kept in `artifact.json`.
"""

import hashlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prox_hpc.publish import replace_json
from prox_hpc.stop import Stop

# Bump a kind's revision by hand when its code changes what it produces: artifacts made by the older code are then
# not taken for its products.
REVISION = {
    "generate": 1,
    "heldout": 1,
    "tokenizer": 1,
    "labels": 1,
    "adapt": 1,
    "pilot": 1,
    "refine": 3,
    "execute": 4,
    "filter": 1,
    "classifier": 1,
    "classify": 1,
    "score": 1,
    "tokenize": 3,
    "pretrain": 2,
    "evaluate": 2,
    "report": 1,
}


@dataclass(frozen=True)
class Step:
    """One step of a study. `config` and `inputs` decide what it produces; the rest only how it runs.

    inputs: role -> address of the artifact read, e.g. {"corpus": "generate/web-0123456789ab"}.
    tasks: elements of the array. processes: ranks of each task (more than one only for DeepSpeed steps).
    runtime: how it runs (interpreter of the server, run folder ...): recorded, not hashed.
    """

    kind: str
    name: str
    config: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    tasks: int = 1
    processes: int = 1
    runtime: dict[str, Any] = field(default_factory=dict)
    always: bool = False  # runs whatever became of its inputs, every time (the report)

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits over kind, revision, configuration and the inputs' fingerprints."""
        meaning = {
            "kind": self.kind,
            "revision": REVISION[self.kind],
            "config": _meaning(self.config),
            "inputs": {role: address.rsplit("-", 1)[1] for role, address in self.inputs.items()},
        }
        text = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    @property
    def address(self) -> str:
        return f"{self.kind}/{self.name}-{self.fingerprint}"

    @property
    def leased(self) -> bool:
        """Whether its tasks take blocks as they come, so that any number of further tasks may help."""
        return self.runtime.get("assignment") == "leased"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Step":
        return Step(**value)


def _meaning(config: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration decides the products. How many blocks may fail only decides whether they are accepted."""
    if "source" not in config:
        return config
    return {**config, "source": {k: v for k, v in config["source"].items() if k != "allow_failed_blocks"}}


@dataclass
class Task:
    """What the code of a step sees: its configuration, its inputs, where to write, how to tell its progress."""

    step: Step
    index: int
    store: Path
    rank: int = 0
    world_size: int = 1
    stop: Stop = field(default_factory=Stop)
    """Whether to end early; polled by steps whose module says `GRACEFUL = True`."""
    _status: dict[str, Any] = field(default_factory=dict)
    _written: float = 0.0

    @property
    def config(self) -> dict[str, Any]:
        return self.step.config

    @property
    def out(self) -> Path:
        """The artifact being built; products get their names in it by `prox_hpc.publish`."""
        return self.store / "artifacts" / self.step.address

    @property
    def state(self) -> Path:
        """The step's state folder: logs, task status, what is not a product."""
        return self.store / "steps" / self.step.address

    def is_published(self, role: str) -> bool:
        """Whether the artifact read in `role` is sealed."""
        return (self.store / "artifacts" / self.step.inputs[role] / "artifact.json").exists()

    def input(self, role: str) -> Path:
        """Directory of the published artifact read in `role`; FileNotFoundError when it is not published."""
        path = self.store / "artifacts" / self.step.inputs[role]
        if not self.is_published(role):
            raise FileNotFoundError(f"{path}: the step's input '{role}' is not published; run its step first")
        return path

    def optional_input(self, role: str) -> Path | None:
        """As `input`; None when the step has no input of that role."""
        return self.input(role) if role in self.step.inputs else None

    def progress(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        """Tell how far this task is (`documents`, `tokens`, `steps` ...) with any figures worth showing (loss=...).

        Written at most twice a second, by rank 0 only.
        """
        # where and when the counting began: the time left is judged from there, not from the start-up before it
        self._status = {"begun": time.time(), "begun_at": done} | self._status
        self._status |= {
            "done": done,
            "total": total,
            "unit": unit,
            "figures": {**self._status.get("figures", {}), **figures},
        }
        if time.time() - self._written > 0.5 or done >= total:
            self.report("running")

    def report(self, state: str, **more: Any) -> None:
        """Write this task's status file, read by the launcher's display and by `prox_hpc.status`."""
        if self.rank:
            return
        self._written = time.time()
        self._status |= {
            "state": state,
            "updated": self._written,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            **more,
        }
        replace_json(self.state / "tasks" / f"{self.index:05d}.json", self._status)
