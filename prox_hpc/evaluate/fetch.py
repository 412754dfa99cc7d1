"""Fill a folder with the data of evaluation tasks, from the hub or from a folder that stands for it.

What a task needs and no more: of ours the items that are asked, of lm-eval's own the split that is scored and the one
that examples are drawn from. Every task is written down in the manifest when its files are complete, so that fetching
again goes on with what is missing.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from prox_hpc.errors import UserError
from prox_hpc.evaluate import catalogue
from prox_hpc.evaluate.prepared import Prepared, Split, read, whole, write

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Wanted:
    """Where the data of a task is. all_rows: whole splits, else those that our task asks."""

    task: str
    dataset: str
    config: str | None
    splits: tuple[str, ...]
    all_rows: bool
    task_file: str | None = None


def fetch(folder: Path, names: list[str], source: Path | None = None) -> Iterator[tuple[str, Prepared, bool]]:
    """Prepare the data of tasks and groups; -> task, what is prepared, whether it was there before.

    source: a folder with the hub's datasets under their names, read in place of the hub. UserError for an unknown name,
    and when the hub cannot be reached or refuses.
    """
    catalogue.check(names)
    for wanted in wanted_by(names):
        said = read(folder).get(wanted.task)
        there = said is not None and whole(folder, said)
        if said is None or not there:
            said = _prepare(folder, wanted, source)
            write(folder, {**read(folder), wanted.task: said})  # read again: others may fetch into the same folder
        yield wanted.task, said, there


def wanted_by(names: list[str]) -> Iterator[Wanted]:
    """The data that the tasks of these names need; tasks that read the held-out text need none."""
    tasks = dict.fromkeys(catalogue.parse(name)[0] for name in catalogue.leaves(names))
    ours = catalogue.task_files()
    for task in tasks:
        if task not in ours:
            continue
        if not ours[task].heldout:
            yield Wanted(task, ours[task].dataset, ours[task].config, (ours[task].split,), all_rows=False)
    if others := [task for task in tasks if task not in ours]:
        yield from _of_lm_eval(others)


def _of_lm_eval(tasks: Iterable[str]) -> Iterator[Wanted]:
    """lm-eval's own tasks, from their YAML files."""
    from lm_eval import tasks as installed

    index, root = catalogue.lm_eval_index(), Path(installed.__file__).parent
    for task in tasks:
        if task not in index:
            raise UserError(f"--tasks {task}: neither ours (`python -m prox_hpc.evaluate list`) nor lm-eval's")
        entry, said = index[task], index[task].cfg or {}
        if entry.yaml_path is None or entry.kind.name != "TASK":
            raise UserError(f"--tasks {task}: a group or a task of lm-eval's that is code; name single tasks")
        if not said.get("dataset_path") or set(said.get("dataset_kwargs") or {}) - {"trust_remote_code"}:
            raise UserError(
                f"--tasks {task}: does not simply read a dataset of the hub; use evaluation.data=hub for it"
            )
        scored = said.get("test_split") or said.get("validation_split")
        examples = said.get("fewshot_split") or said.get("training_split") or said.get("validation_split")
        splits = tuple(dict.fromkeys(filter(None, (scored, examples))))
        file = str(entry.yaml_path.relative_to(root))
        yield Wanted(task, said["dataset_path"], said.get("dataset_name"), splits, all_rows=True, task_file=file)


def _prepare(folder: Path, wanted: Wanted, source: Path | None) -> Prepared:
    """Load the splits of one task and write them; its files in `folder`/TASK."""
    import datasets

    from prox_hpc.evaluate.prompts import chosen

    datasets.disable_progress_bars()
    splits = {}
    folder.mkdir(parents=True, exist_ok=True)
    # datasets keeps its files open, and NFS cannot remove such a file altogether
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-", ignore_cleanup_errors=True) as scratch:
        revision = _revision(wanted) if source is None else None
        for split in wanted.splits:
            dataset = _load(wanted, split, source, revision, scratch)
            rows = dataset if wanted.all_rows else dataset.select(chosen(len(dataset)))
            file = f"{wanted.task}/{split}.parquet"
            (folder / file).parent.mkdir(exist_ok=True)
            rows.to_parquet(folder / file)
            size = (folder / file).stat().st_size
            splits[split] = Split(file, len(rows), len(dataset), size, digest(rows))
    return Prepared(wanted.dataset, wanted.config, revision, splits, wanted.task_file)


def _load(wanted: Wanted, split: str, source: Path | None, revision: str | None, scratch: str) -> "Dataset":
    import datasets

    place = wanted.dataset if source is None else str(source / wanted.dataset)
    if source is not None and not Path(place).is_dir():
        raise UserError(
            f"--source {source}: has no folder {wanted.dataset}; fill it with "
            f"`hf download --repo-type dataset {wanted.dataset} --local-dir {place}`"
        )
    with _told(wanted, place):
        dataset = datasets.load_dataset(place, wanted.config, split=split, revision=revision, cache_dir=scratch)
    if not len(dataset):
        raise UserError(f"{place}: split {split} is empty")
    return dataset


def _revision(wanted: Wanted) -> str:
    """The dataset's present commit on the hub."""
    from huggingface_hub import HfApi

    with _told(wanted, wanted.dataset):
        return str(HfApi().dataset_info(wanted.dataset).sha)


@contextmanager
def _told(wanted: Wanted, place: str) -> Iterator[None]:
    """What the hub's libraries raise when a dataset cannot be had, as a UserError of one line."""
    import httpx
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError, httpx.HTTPError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        config = f", {wanted.config}" if wanted.config else ""
        raise UserError(
            f"{wanted.task}: dataset {place}{config} cannot be read: {said}; fetch where there is network (HF_ENDPOINT "
            "names a mirror of the hub), or from a local copy: --source FOLDER"
        ) from error


def digest(rows: "Dataset") -> str:
    """32 hex digits over the rows' content, in order: the same whichever version wrote the file."""
    state = xxhash.xxh3_128()
    for row in rows:
        state.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return state.hexdigest()
