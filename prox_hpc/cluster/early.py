"""Tasks that begin before the step they wait for is over: checkpoints are evaluated while training still runs.

On Slurm they are queued as all others are, `afterok` on their inputs. While the step that makes such an input runs, a
thread beside its task asks the waiting step's module (`ready(task)`) whose part is there already, and takes those
tasks' dependency away; they start when Slurm has room. So nothing waits on a node, what a failed training leaves
unmade is cancelled as ever (`kill-on-invalid-dep`), and a requeue of the training is not noticed. Where `scontrol` is
not at hand or not allowed on a node, the log says so and the tasks begin after the step.

    STORE/steps/KIND/NAME-FINGERPRINT/followers/NAME-FINGERPRINT.json    {"step_file", "job", "indices"}
"""

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prox_hpc.cluster import worker
from prox_hpc.errors import UserError
from prox_hpc.publish import replace_json
from prox_hpc.study.store import state_dir
from prox_hpc.task import Step, Task

FOLLOWED = ("pretrain",)  # kinds of steps whose products come one by one
POLL_S = 5
COMMAND_S = 60  # a controller at work answers in less than one; the next round asks again


def may_begin(task: Task) -> bool:
    """Whether a task whose step says `early` in its runtime has what it needs, though an input is not published."""
    return "early" in task.step.runtime and bool(importlib.import_module(worker.MODULES[task.step.kind]).ready(task))


def follow(store: Path, step: Step, job: str, indices: list[int]) -> None:
    """Note beside the input that a queued array waits for: its elements 0, 1, ... are the step's tasks `indices`."""
    if "early" not in step.runtime:
        return
    own, folder = state_dir(store, step), store / "steps" / step.inputs[step.runtime["early"]] / "followers"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_json(folder / f"{own.name}.json", {"step_file": str(own / "step.json"), "job": job, "indices": indices})


@contextmanager
def releasing(step_file: Path) -> Iterator[None]:
    """While it lasts, the tasks noted beside a step are released as soon as they may begin; by its first rank."""
    if step_file.parts[-3] not in FOLLOWED or os.environ.get("SLURM_PROCID", "0") != "0":
        yield
        return
    over = threading.Event()
    threading.Thread(target=_watch, args=(step_file.parent / "followers", over), name="early", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(folder: Path, over: threading.Event) -> None:
    released: set[str] = set()
    told: set[str] = set()
    while not over.wait(POLL_S):
        try:
            release(folder, released)
        except (OSError, subprocess.SubprocessError, UserError, ValueError, KeyError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            if reason not in told:  # once each, and not every few seconds
                print(f"early: tasks cannot be released now: {reason.strip()}", file=sys.stderr, flush=True)
            told.add(reason)


def release(folder: Path, released: set[str]) -> None:
    """Release the tasks noted in `folder` that may begin; `released`: elements not to be looked at again, added to.

    OSError, SubprocessError: Slurm's commands are not there, or refuse. UserError: a note that no longer fits its step.
    """
    for note in sorted(folder.glob("*.json")):
        waiting = json.loads(note.read_text())
        step_file = Path(waiting["step_file"])
        if not step_file.exists():  # its study was deleted
            note.unlink(missing_ok=True)
            continue
        for element, index in _elements(waiting["job"], waiting["indices"]).items():
            if element in released or not may_begin(task := worker.load(step_file, index)):
                continue
            if _waits(element, task.step):
                _run("scontrol", "update", f"JobId={element}", "Dependency=")
                print(f"early: {task.step.address}, task {index} (job {element}) may begin", flush=True)
            released.add(element)


def _elements(job: str, indices: list[int]) -> dict[str, int]:
    """Slurm's ids -> indices of the tasks; submitit makes no array of a single task."""
    return {f"{job}_{n}": index for n, index in enumerate(indices)} if len(indices) > 1 else {job: indices[0]}


def _waits(element: str, step: Step) -> bool:
    """Whether this very job is in the queue; an old note's number may be another job's by now."""
    rows = _run("squeue", "-h", "-r", "-t", "PENDING", "--me", "-o", "%i %j").splitlines()
    return f"{element} {step.kind}:{step.name}" in rows


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMAND_S).stdout
