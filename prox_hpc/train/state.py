"""What a run resumes from: DeepSpeed's state of all ranks, under the step's state folder.

    resume/step-NNNNNN/    a saved state, one file or two for each rank
    resume/resume.json     which one is whole: replaced when all ranks have written theirs; older ones are deleted then
    resume/losses.jsonl    the log of losses so far

Loaded by as many ranks as saved it, the run goes on bit for bit. For another number of ranks DeepSpeed's shards are
first turned into a universal checkpoint (one file for each parameter) by rank 0, which is deleted after loading: the
run then goes on as it would have from the start on that number, that is, equal but for rounding.
"""

import argparse
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prox_hpc.publish import replace_json
from prox_hpc.task import Task


@dataclass(frozen=True)
class Saved:
    """What resume.json says: the state's folder, what was done by then, and how many ranks wrote it."""

    tag: str
    step: int
    tokens: int
    seconds: float
    world_size: int


class States:
    """The saved states of a run; all ranks call `load` and `save`."""

    def __init__(self, task: Task, zero_stage: int) -> None:
        self.rank, self.world_size, self.zero_stage = task.rank, task.world_size, zero_stage
        self.folder = folder_of(task)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "losses.jsonl"

    def newest(self) -> Saved | None:
        """The newest whole state."""
        path = self.folder / "resume.json"
        return Saved(**json.loads(path.read_text())) if path.exists() else None

    def resized(self, saved: Saved | None) -> bool:
        """Whether it has to be converted for this number of ranks; without ZeRO every rank holds the whole state."""
        return saved is not None and saved.world_size != self.world_size and self.zero_stage > 0

    def load(self, engine: Any, saved: Saved | None) -> None:
        """Put the newest state into the engine, which was made for a universal checkpoint if `resized(saved)`."""
        import torch

        if saved and self.resized(saved):
            universal = f"universal-{saved.tag}"
            if self.rank == 0:
                self._convert(saved.tag, universal)
            torch.distributed.barrier()
            self._load(engine, universal)
            _own_steps(engine)
        elif saved:
            self._load(engine, saved.tag)
        torch.distributed.barrier()
        if self.rank == 0:
            self._sweep(saved.tag if saved else None)
            done = saved.step if saved else 0
            lines = self.log.read_text().splitlines(keepends=True)[:done] if self.log.exists() else []
            draft = self.log.with_suffix(".tmp")
            draft.write_text("".join(lines))
            draft.replace(self.log)

    def losses(self, saved: Saved | None) -> list[float]:
        """Losses of the steps done by then."""
        if saved is None or not self.log.exists():
            return []
        return [json.loads(line)["loss"] for line in self.log.read_text().splitlines()[: saved.step]]

    def save(self, engine: Any, step: int, tokens: int, seconds: float) -> None:
        """Save the engine's state; it counts once resume.json names it."""
        import torch

        tag = f"step-{step:06d}"
        engine.save_checkpoint(str(self.folder), tag=tag, client_state={"step": step}, save_latest=False)
        for file in [*(self.folder / tag).iterdir(), *([self.log] if self.rank == 0 else [])]:
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        torch.distributed.barrier()
        if self.rank == 0:
            replace_json(self.folder / "resume.json", asdict(Saved(tag, step, tokens, seconds, self.world_size)))
            self._sweep(tag)
        torch.distributed.barrier()

    def _sweep(self, tag: str | None) -> None:
        """Delete all states but one: older ones, converted ones, and what a killed run left half written."""
        for folder in [*self.folder.glob("step-*"), *self.folder.glob("universal-*")]:
            if folder.name != tag:
                shutil.rmtree(folder)

    def _load(self, engine: Any, tag: str) -> None:
        with _plain_path(self.folder) as folder:
            engine.load_checkpoint(folder, tag=tag)

    def _convert(self, tag: str, universal: str) -> None:
        """Write the universal checkpoint of a saved state beside it; it takes as much room again."""
        from deepspeed.checkpoint import ds_to_universal

        shutil.rmtree(self.folder / universal, ignore_errors=True)  # of a conversion that was killed
        with _plain_path(self.folder) as folder:
            arguments = argparse.Namespace(
                input_folder=f"{folder}/{tag}",
                output_folder=f"{folder}/{universal}",
                num_extract_workers=1,  # more would be forked from a process that has threads of gloo's or a GPU
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,
            )
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # progress bars
                ds_to_universal.main(arguments)
        (self.folder / "latest_universal").unlink()


def folder_of(task: Task) -> Path:
    """Where a task's states lie."""
    return task.state / "resume"


@contextmanager
def _plain_path(folder: Path) -> Iterator[str]:
    """Another path of `folder`, without a character that means something in a pattern.

    DeepSpeed 0.19.8 makes globs and regular expressions of the paths it reads from: with a `[` or a `+` in one it finds
    no file, whatever number of ranks saved them.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _own_steps(engine: Any) -> None:
    """Give every part of the optimiser its own count of steps, on its own device.

    Loading a universal checkpoint at ZeRO stage 3, DeepSpeed 0.19.8 gives all parts one and the same tensor, which
    then counts each update once for every part. (It also gives all of them the first group's weight decay; here there
    is one group.) At stages 1 and 2 the tensor is where it was saved from, and the fused AdamW wants it by its weights.
    """
    import torch

    for weights, state in engine.optimizer.optimizer.state.items():
        if "step" in state:
            state["step"] = torch.as_tensor(state["step"], dtype=torch.float32).clone().to(weights.device)
