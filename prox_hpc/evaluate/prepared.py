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
    if not path.exists():
        return {}
    tasks = json.loads(path.read_text())["tasks"]
    return {
        name: Prepared(**{**said, "splits": {split: Split(**of) for split, of in said["splits"].items()}})
        for name, said in tasks.items()
    }


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
    UserError, names that cannot be meant and data that is not there: all that can be known without lm-eval.
    """
    names, ours = evaluation.tasks, catalogue.task_files()
    catalogue.check(names)
    world = [name for name, said in ours.items() if said.heldout]  # scales name these, whatever the tasks are
    if evaluation.metric not in (*names, *world):
        raise UserError(f"evaluation.metric={evaluation.metric}: is not among evaluation.tasks; name one of {names}")
    tasks = list(dict.fromkeys(catalogue.parse(name)[0] for name in catalogue.leaves(names)))
    heldout = [task for task in tasks if task in world]
    if heldout and evaluation.kind == "none":
        raise UserError(f"evaluation.tasks: {heldout[0]} needs held-out text; set evaluation.kind to world or files")
    needed = [task for task in tasks if task not in heldout]
    if evaluation.data is None or evaluation.data == HUB:
        unread = [task for task in needed if task in ours]
        if unread and evaluation.data is None:
            raise UserError(
                f"evaluation.data: {unread[0]} reads a prepared folder; where there is network, `{FETCH} FOLDER`, then "
                f"evaluation.data=FOLDER (or evaluation.data={HUB}, if the tasks themselves can reach the hub)"
            )
        return {}
    return _states(Path(evaluation.data), needed)


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
