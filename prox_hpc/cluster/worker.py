"""The one function a task runs, whoever started it: a scheduler, the local backend, or a person by hand.

    python -m prox_hpc.worker STEP.json INDEX        # one task (and, when the step has one task, its seal)
                                                     # of a leased step, with an index beyond its tasks: one more helps
    python -m prox_hpc.worker STEP.json seal         # check all tasks' products and publish artifact.json

A task that fails ends with a traceback, a status file that says so, and a non-zero exit status. One that was told to
end early (SIGUSR2, SIGTERM) and could, ends with status 75: what it published counts, what is left is for another run.
"""

import argparse
import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from prox_hpc.errors import EXIT_USER_ERROR, UserError
from prox_hpc.machine import machine, versions
from prox_hpc.publish import publish_json
from prox_hpc.stop import Interrupted, install
from prox_hpc.task import Step, Task

MODULES = {
    "generate": "prox_hpc.corpus.generate",
    "heldout": "prox_hpc.corpus.heldout",
    "filter": "prox_hpc.corpus.filters",
    "classifier": "prox_hpc.corpus.classifier",
    "classify": "prox_hpc.corpus.classify",
    "tokenizer": "prox_hpc.refiner.tokenizer",
    "labels": "prox_hpc.refiner.labels",
    "adapt": "prox_hpc.refiner.adapt",
    "score": "prox_hpc.refiner.score",
    "pilot": "prox_hpc.refine.pilot",
    "refine": "prox_hpc.refine.task",
    "execute": "prox_hpc.refine.execute",
    "tokenize": "prox_hpc.pretrain.tokenize",
    "pretrain": "prox_hpc.pretrain.task",
    "evaluate": "prox_hpc.evaluate.task",
    "report": "prox_hpc.report.task",
}
MAX_TASKS = 100_000  # five digits in the names of status files
RANKS_WAIT_S = 20
GRACE_S = 90  # sbatch's --signal, where a step says nothing


def load(step_file: Path, index: int) -> Task:
    """The task `index` of the step described in `step_file` (STORE/steps/KIND/NAME-FINGERPRINT/step.json)."""
    if not step_file.exists():
        raise UserError(f"{step_file}: no such step file; they are written by launch under STORE/steps/")
    step = Step.from_json(json.loads(step_file.read_text()))
    if step_file.parent.name != step.address.split("/")[1]:
        raise UserError(f"{step_file}: is not in the folder of its step ({step.address}); it was moved or edited")
    if not 0 <= index < step.tasks and not (step.leased and index < MAX_TASKS):
        raise UserError(f"{step_file}: has tasks 0 to {step.tasks - 1}, not {index}")
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return Task(step, index, store=step_file.resolve().parents[3], rank=rank, world_size=world_size)


def run_task(step_file: str, index: int, requeue: Callable[[], None] | None = None) -> None:
    """Run one task; a step of a single task is sealed here too, by rank 0 of task 0.

    requeue: puts a task that ended early upon a warning back into the queue and ends the process. SystemExit (75) for
    a task that ended early otherwise.
    """
    os.umask(0o077)
    _distributed_environment()
    task = load(Path(step_file), index)
    if not task.step.always and (task.out / "artifact.json").exists():
        return
    started = time.time()
    task.report("running", started=started, machine=machine())
    try:
        module = importlib.import_module(MODULES[task.step.kind])
        with _graceful(module, task):
            module.run(task)
        if task.step.tasks == 1 and task.index == 0 and task.rank == 0:
            _seal(module, task)
    except Interrupted as why:
        task.report("interrupted", why=str(why), seconds=time.time() - started)
        print(f"interrupted by {task.stop.reason}: {why}", file=sys.stderr)
        if task.stop.warned and requeue:
            requeue()
            if task.rank:  # rank 0 puts the job back, and srun would end it as soon as another rank has ended
                time.sleep(RANKS_WAIT_S)
        raise SystemExit(os.EX_TEMPFAIL) from why
    except BaseException as error:
        task.report("failed", error=f"{type(error).__name__}: {error}"[:2000], seconds=time.time() - started)
        raise
    task.report("done", seconds=time.time() - started)


@contextmanager
def _graceful(module: ModuleType, task: Task) -> Iterator[None]:
    """Signals set `task.stop` for a step that polls it; any other meets the handlers that were there."""
    if not getattr(module, "GRACEFUL", False):
        yield
        return
    with install(task.step.runtime.get("grace_s", GRACE_S)) as task.stop:
        yield


def run_seal(step_file: str) -> None:
    """Check the products of all tasks and publish `artifact.json`; raises when anything is missing."""
    os.umask(0o077)
    task = load(Path(step_file), 0)
    if not (task.out / "artifact.json").exists():
        _seal(importlib.import_module(MODULES[task.step.kind]), task)


def _seal(module: ModuleType, task: Task) -> None:
    summary = module.seal(task) if hasattr(module, "seal") else {}
    if task.step.always:
        return
    publish_json(task.out / "artifact.json", manifest(task.step, task.out, summary))


def manifest(step: Step, out: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """What `artifact.json` holds: identity, inputs, summary, files with sizes, versions."""
    files = {str(p.relative_to(out)): p.stat().st_size for p in sorted(out.rglob("*")) if p.is_file()}
    return {
        "address": step.address,
        "kind": step.kind,
        "config": step.config,
        "inputs": step.inputs,
        "runtime": step.runtime,
        "summary": summary,
        "files": files,
        "versions": versions(),
        "host": socket.gethostname(),
        "published": time.time(),
    }


def _distributed_environment() -> None:
    """Under Slurm give torch.distributed its RANK, WORLD_SIZE, MASTER_ADDR ... from submitit's environment.

    Which GPUs a rank sees stays as Slurm says: by default submitit would show each only number LOCAL_RANK of the node,
    of which the rank then picks number LOCAL_RANK, and which may be another job's. What a prologue has set is replaced.
    """
    if "SUBMITIT_EXECUTOR" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1":
        import submitit

        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m prox_hpc.worker", description="Run one task of a step by hand.")
    parser.add_argument("step", help="STORE/steps/KIND/NAME-FINGERPRINT/step.json")
    parser.add_argument("index", help="number of the task, or `seal`")
    given = parser.parse_args(arguments)
    try:
        if given.index == "seal":
            run_seal(given.step)
        elif given.index.isdecimal():
            run_task(given.step, int(given.index))
        else:
            raise UserError(f"{given.index}: is neither a task's number nor `seal`")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    return 0
