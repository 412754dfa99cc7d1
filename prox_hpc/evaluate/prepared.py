"""The folder that `python -m prox_hpc.evaluate fetch` fills: evaluation data for nodes without network.

`manifest.json` says for every task where its rows are from and where they are; each split is a Parquet file. `launch`
looks here before it queues anything, and the digests of the rows are part of an evaluation's identity.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prox_hpc.config import Evaluation
from prox_hpc.errors import UserError
from prox_hpc.evaluate import catalogue
from prox_hpc.publish import replace_json

HUB = "hub"
"""`evaluation.data=hub`: tasks read the hub itself, or what is in its cache."""
FETCH = "python -m prox_hpc.evaluate fetch"


@dataclass(frozen=True)
class Split:
    """file: relative to the folder. rows: in it; of: of the whole split. bytes: of the file. digest: of the
    rows' content.
    """

    file: str
    rows: int
    of: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class Prepared:
    """The data of one task. revision: commit of the dataset on the hub, None when it came from a local folder.

    task_file: of one of lm-eval's own tasks, its YAML relative to lm-eval's folder of tasks.
    """

    dataset: str
    config: str | None
    revision: str | None
    splits: dict[str, Split]
    task_file: str | None = None


def read(folder: Path) -> dict[str, Prepared]:
    """What is prepared, by task; {} when there is no manifest yet."""
    path = folder / "manifest.json"
    if folder.is_file():
        raise UserError(f"evaluation.data={folder}: is a file; give the folder that `{FETCH}` made")
    if not path.exists():
        return {}
    try:
        tasks = json.loads(path.read_bytes())["tasks"]
        return {
            name: Prepared(**{**said, "splits": {split: Split(**of) for split, of in said["splits"].items()}})
            for name, said in tasks.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"evaluation.data={folder}: its manifest.json is damaged ({error!r}); remove it and fetch again: "
            f"`{FETCH} {folder}`"
        ) from error


def write(folder: Path, tasks: Mapping[str, Prepared]) -> None:
    """Replace the manifest: what is prepared, by task."""
    replace_json(folder / "manifest.json", {"tasks": {name: asdict(said) for name, said in sorted(tasks.items())}})


def whole(folder: Path, said: Prepared) -> bool:
    """Whether all files of a task are there, of the size that was written."""
    files = [(folder / split.file, split.bytes) for split in said.splits.values()]
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def identify(evaluation: Evaluation) -> dict[str, Any]:
    """What tells one state of the evaluation data from another: task -> split -> digest of its rows.

    {} when nothing is prepared: the held-out artifact is an input of its own, and the hub says nothing. Refuses, with a
    UserError, names that cannot be meant and data that is not there.
    """
    names, ours = evaluation.tasks, catalogue.task_files()
    catalogue.check(names)
    if evaluation.metric not in names:
        raise UserError(f"evaluation.metric={evaluation.metric}: is not among evaluation.tasks; name one of {names}")
    tasks = list(dict.fromkeys(catalogue.parse(name)[0] for name in catalogue.leaves(names)))
    _check_heldout(evaluation, {task: file for task in tasks if task in ours and (file := ours[task].heldout)})
    needed = [task for task in tasks if task not in ours or not ours[task].heldout]
    folder = Path(evaluation.data) if evaluation.data and evaluation.data != HUB else None
    there = read(folder) if folder else {}
    catalogue.check_known([name for name in catalogue.leaves(names) if catalogue.parse(name)[0] not in there])
    if evaluation.data is None and needed:
        listed = " ".join(_shortest(needed))
        raise UserError(
            f"evaluation.data: {needed[0]} reads a prepared folder; where there is network, `{FETCH} FOLDER --tasks "
            f"{listed}`, then evaluation.data=FOLDER (or evaluation.data={HUB}, if the tasks themselves can reach the "
            "hub)"
        )
    return _states(folder, needed) if folder else {}


def _check_heldout(evaluation: Evaluation, files: Mapping[str, str]) -> None:
    """files: task -> the file it reads of the held-out artifact. UserError where that will not be there."""
    for task, file in files.items():
        if evaluation.kind == "none":
            raise UserError(f"evaluation.tasks: {task} needs held-out text; set evaluation.kind to world or files")
        if evaluation.kind == "files" and file != "text.jsonl":
            raise UserError(
                f"evaluation.tasks: {task} asks about the generated world, of which evaluation.kind=files holds "
                "nothing; leave it out (evaluation.tasks=[world_bpb] evaluation.metric=world_bpb)"
            )


def check_unchanged(folder: str | None, states: Mapping[str, Any]) -> None:
    """UserError when a folder is no more as it was when the study was planned; `states`: what `identify` said then."""
    if states and _states(Path(str(folder)), list(states)) != states:
        raise UserError(f"evaluation.data={folder}: was fetched again since the study was launched; launch again")


def _states(folder: Path, needed: list[str]) -> dict[str, Any]:
    prepared = read(folder)
    lacking = [task for task in needed if task not in prepared or not whole(folder, prepared[task])]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UserError(
            f"evaluation.data={folder}: has not all of the data of {lacking[0]}{more}; "
            f"`{FETCH} {folder} --tasks {' '.join(_shortest(lacking))}`, where there is network"
        )
    splits = {task: prepared[task].splits for task in needed}
    return {task: {split: said.digest for split, said in of.items()} for task, of in splits.items()}


def _shortest(tasks: list[str]) -> list[str]:
    """Names for a command line: a task's subsets by the task's name."""
    ours = catalogue.task_files()
    return list(dict.fromkeys(ours[t].path.stem if t in ours and ours[t].subset else t for t in tasks))
