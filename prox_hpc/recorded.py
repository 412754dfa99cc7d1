"""The recorded programs of a finished refine step, with the documents they were written for.

Replay, inspection and comparison all start here: from a run folder (or the programs artifact itself) to a stream of
documents, each with its row of the programs file, and the settings under which the run itself executed them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from prox_hpc.corpus.blocks import failed_blocks
from prox_hpc.corpus.read import Block, Document, Source, open_source
from prox_hpc.errors import UserError
from prox_hpc.refine.records import Execution, programs_path
from prox_hpc.study.store import load_run
from prox_hpc.task import Step, Task


@dataclass(frozen=True)
class Recorded:
    """A published programs artifact.

    programs: its folder. source: the corpus it was written for. execution: how the run itself executed it.
    """

    step: Step
    store: Path
    programs: Path
    source: Source
    execution: Execution

    @property
    def summary(self) -> dict[str, Any]:
        """What the step's seal found out: counts of documents, programs, tokens."""
        summary: dict[str, Any] = json.loads((self.programs / "artifact.json").read_text())["summary"]
        return summary

    def path(self, block: Block) -> Path:
        """The programs file of a block."""
        return programs_path(self.programs, block.index)

    def read(self, block: Block) -> Iterator[tuple[Document, dict[str, Any]]]:
        """Documents of a block with their rows of the programs file, in order, streamed.

        RuntimeError when their numbers differ: the programs are another corpus's.
        """
        path = self.path(block)
        for document, row in zip_longest(self.source.read(block), _rows(path)):
            if document is None or row is None:
                raise RuntimeError(
                    f"{path}: has not as many rows as {block.path} has documents; it is another corpus's"
                )
            yield document, row


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256):
            yield from batch.to_pylist()


def open_recorded(path: Path, refiner: str | None = None) -> Recorded:
    """Open the programs of a run folder, or a programs artifact (STORE/artifacts/refine/NAME-FINGERPRINT).

    refiner: which one, if the run has several: the name of the step, or its end. UserError when there is none, when it
    is not finished, or when the choice is open.
    """
    step, store, address = _of_artifact(path) if (path / "artifact.json").exists() else _of_run(path, refiner)
    programs = store / "artifacts" / address
    if step.address != address:
        raise UserError(
            f"{path}: was refined by an older version of prox_hpc, whose records differ ({address}, today "
            f"{step.address}); launch the study again"
        )
    if not (programs / "artifact.json").exists():
        raise UserError(f"{path}: its step {address} is not finished; see `python -m prox_hpc.status {path}`")
    task = Task(step, 0, store)
    source = open_source(task)
    failed = failed_blocks(programs, (block.index for block in source.blocks))
    source.blocks = [block for block in source.blocks if block.index not in failed]
    return Recorded(step, store, programs, source, Execution.of(step.config, task.optional_input("pilot")))


def _of_artifact(path: Path) -> tuple[Step, Path, str]:
    """-> step, store, address as recorded."""
    path = path.resolve()
    address = json.loads((path / "artifact.json").read_text()).get("address", "?")
    store = path.parents[2] if len(path.parents) > 2 else path
    file = store / "steps" / address / "step.json"
    if not address.startswith("refine/"):
        raise UserError(f"{path}: is a {address.split('/')[0]} artifact, not a refine one; give a run folder")
    if not file.exists():
        raise UserError(f"{path}: its step file {file} is missing; give the artifact where it was published")
    return Step.from_json(json.loads(file.read_text())), store, address


def _of_run(path: Path, refiner: str | None) -> tuple[Step, Path, str]:
    config, _ = load_run(path)
    steps = json.loads((path / "study.json").read_text())["steps"]
    found = {address: Step.from_json(step) for address, step in steps.items() if address.startswith("refine/")}
    if not found:
        raise UserError(f"{path}: no step of this run writes programs; it has no arm of kind refined")
    chosen = [a for a, step in found.items() if refiner is None or f"-{step.name}".endswith(f"-{refiner}")]
    if len(chosen) != 1:
        names = ", ".join(step.name for step in found.values())
        raise UserError(f"{path}: --refiner {refiner or 'is not given'}: choose one of {names}")
    return found[chosen[0]], Path(config["store"]), chosen[0]
