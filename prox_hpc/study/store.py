"""What is on disk of a study: published artifacts, the state of steps, and run folders.

    STORE/artifacts/KIND/NAME-FINGERPRINT/      products; artifact.json is written last
    STORE/steps/KIND/NAME-FINGERPRINT/          step.json, tasks/NNNNN.json, logs/, claim.json
    RUN/study.json, RUN/config.yaml, RUN/report/

The store is shared by all studies; a run folder belongs to one.
"""

import errno
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prox_hpc.errors import UserError
from prox_hpc.publish import publish_file, replace_json, temporary
from prox_hpc.study.plan import Plan
from prox_hpc.task import Step


def artifact_dir(store: Path, step: Step) -> Path:
    return store / "artifacts" / step.address


def state_dir(store: Path, step: Step) -> Path:
    return store / "steps" / step.address


def is_published(store: Path, step: Step) -> bool:
    return not step.always and (artifact_dir(store, step) / "artifact.json").exists()


def write_step(store: Path, step: Step) -> Path:
    """Write the step's file, which is all a worker needs; -> its path."""
    path = state_dir(store, step) / "step.json"
    replace_json(path, step.to_json())
    return path


def stored_tasks(store: Path, step: Step) -> int | None:
    """How many tasks the step had when it was last launched; None if it never was."""
    path = state_dir(store, step) / "step.json"
    return Step.from_json(json.loads(path.read_text())).tasks if path.exists() else None


def task_states(store: Path, step: Step) -> list[dict[str, Any]]:
    """Newest status of each task ({} where it never started), in task order; then those of tasks that helped."""
    states = []
    folder = state_dir(store, step) / "tasks"
    helpers = sorted(path for path in folder.glob("[0-9]*.json") if int(path.stem) >= step.tasks)
    for path in [*(folder / f"{index:05d}.json" for index in range(step.tasks)), *helpers]:
        try:
            states.append(json.loads(path.read_text()))
        except FileNotFoundError:
            states.append({})
    return states


def forget_failures(store: Path, step: Step) -> bool:
    """Remove the notes of unreadable blocks (`prox_hpc.corpus.blocks`), so that they are tried again; -> any there?"""
    notes = list((artifact_dir(store, step) / "blocks").glob("*.failed.json"))
    for note in notes:
        note.unlink(missing_ok=True)
    return bool(notes)


def foresee(folder: Path) -> None:
    """Check what can be told without writing of a folder that `probe` will make. Raises UserError."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{folder}: {there} is a file; choose another folder with output=DIR")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: {there} is not writable; choose another folder with output=DIR")


def probe(folder: Path) -> None:
    """Check that `folder` can hold a store: writable, with hard links and enough room. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = temporary(folder / "probe")
        try:
            publish_file(name, lambda draft: draft.write_bytes(b"x" * 65536) and None)
        finally:
            name.unlink(missing_ok=True)
    except OSError as error:
        reason = {
            errno.ENOSPC: "the disk is full; free some space or choose another folder with output=DIR",
            errno.EDQUOT: "your quota is used up; free some space or choose another folder with output=DIR",
            errno.EACCES: "it is not writable; choose another folder with output=DIR",
            errno.EROFS: "the filesystem is read-only; choose another folder with output=DIR",
            errno.ENOTDIR: "a part of the path is a file; choose another folder with output=DIR",
            errno.EEXIST: "it is a file; choose another folder with output=DIR",
            errno.EPERM: "the filesystem has no hard links; choose another folder with output=DIR",
        }.get(error.errno or 0, f"{error.strerror}; choose another folder with output=DIR")
        raise UserError(f"{folder}: cannot be used for the study's files: {reason}") from error
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < 64 * 2**20:
        raise UserError(
            f"{folder}: less than 64 MiB are free; free some space or choose another folder with output=DIR"
        )


def check_allowed(store: Path, plan: Plan) -> None:
    """Refuse published steps that left out more unreadable blocks than this launch allows. Raises UserError.

    The allowance does not decide what a step makes, so it is not part of its address.
    """
    for step in plan:
        if "source" not in step.config or not is_published(store, step):
            continue
        artifact = artifact_dir(store, step)
        failed = json.loads((artifact / "artifact.json").read_text())["summary"].get("failed_blocks", 0)
        allowed = step.config["source"].get("allow_failed_blocks", 0)
        if failed > allowed:
            raise UserError(
                f"corpus.allow_failed_blocks={allowed}: {artifact} was published without {failed} unreadable block(s); "
                f"allow {failed}, or restore the files, remove that folder and launch again"
            )


def check_run(run: Path, plan: Plan, config: dict[str, Any]) -> None:
    """Check that the run folder is new or belongs to this very study. Raises UserError with the difference."""
    path = run / "study.json"
    if path.exists():
        try:
            old = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path}: is not JSON ({error}); choose another run_dir=DIR") from error
        # The report is made anew each time: how it runs (servers, array sizes) may change, what is computed may not.
        if _computed(old["steps"]) != _computed(plan.addresses):
            raise UserError(
                f"{run}: holds another study ({_difference(old['config'], config)}); "
                "choose another name=NAME (or run_dir=DIR), or launch the old settings"
            )
    elif run.exists() and any(run.iterdir()):
        raise UserError(f"{run}: holds files but no study; choose another name=NAME (or run_dir=DIR)")


def open_run(run: Path, plan: Plan, config: dict[str, Any]) -> None:
    """Make the run folder (0700) and write down what the study is."""
    run.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_json(run / "study.json", {"config": config, "steps": {step.address: step.to_json() for step in plan}})


def _computed(addresses: Iterable[str]) -> set[str]:
    return {address for address in addresses if not address.startswith("report/")}


def load_run(run: Path) -> tuple[dict[str, Any], list[Step]]:
    """-> (configuration, steps in plan order) of a run folder. Raises UserError when it is none."""
    path = run / "study.json"
    if not path.exists():
        raise UserError(f"{run}: is not a run folder (no study.json); runs are in OUTPUT/runs/")
    try:
        value = json.loads(path.read_text())
        return value["config"], [Step.from_json(step) for step in value["steps"].values()]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is damaged ({type(error).__name__}: {error}); remove it and launch the study again"
        ) from error


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts -> {"a.b": leaf}."""
    if isinstance(value, dict) and value:
        return {k: v for key, sub in value.items() for k, v in flatten(sub, f"{prefix}{key}.").items()}
    return {prefix[:-1]: value}


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    a, b = flatten(old), flatten(new)
    changed = [f"{k}: {a.get(k)} there, {b.get(k)} here" for k in sorted({*a, *b}) if a.get(k) != b.get(k)]
    changed = [line for line in changed if not line.startswith(("cluster.", "dry_run"))]
    more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
    return ("; ".join(changed[:4]) or "its input files or the code's revisions changed") + more
