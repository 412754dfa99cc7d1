"""Which tasks there are and what a name in `evaluation.tasks` means: read from our task files, without lm-eval.

A name is one of our tasks (`tasks/*.yaml`), one of our groups of tasks, or anything else: then lm-eval has to know it.
`name@2` is the task with two examples in its prompt. A group stands for its members and has a score of its own, their
plain mean; the subsets of a task (MMLU's) are a group as well.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from prox_hpc.errors import UserError

TASK_FILES = Path(__file__).parent / "tasks"
OURS = ("prox_", "world_")
"""What the names of our tasks and groups begin with."""


@dataclass(frozen=True)
class TaskFile:
    """One of our tasks. subset: the dataset's configuration where one file describes several tasks.

    heldout: the file of the held-out artifact that is its data, e.g. `text.jsonl`; else it is `split` of the hub's
    `dataset` in configuration `config`.
    """

    path: Path
    subset: str | None = None
    heldout: str | None = None
    dataset: str = ""
    config: str | None = None
    split: str = ""


class _Loader(yaml.SafeLoader):
    """Takes lm-eval's `!function module.name` for a string: only lm-eval needs the function."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))  # type: ignore[no-untyped-call]


@cache
def _described() -> list[tuple[Path, dict[str, Any]]]:
    return [(path, yaml.load(path.read_text(), Loader=_Loader)) for path in sorted(TASK_FILES.glob("*.yaml"))]


@cache
def task_files() -> dict[str, TaskFile]:
    """Our tasks by name; the subsets of a task by their own names (`prox_mmlu_anatomy`)."""
    found = {}
    for path, said in _described():
        if "task" not in said or "group" in said:
            continue
        if files := said.get("dataset_kwargs", {}).get("data_files"):
            found[said["task"]] = TaskFile(path, heldout=files["test"].removeprefix("HELDOUT/"))
            continue
        for subset in said.get("metadata", {}).get("subsets", [None]):
            name = f"{said['task']}_{subset}" if subset else said["task"]
            config = subset or said.get("dataset_name")
            found[name] = TaskFile(path, subset, None, said["dataset_path"], config, said["test_split"])
    return found


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Our groups and their members, which may be groups themselves."""
    found = {said["group"]: tuple(said["task"]) for _, said in _described() if "group" in said}
    for _, said in _described():
        if subsets := said.get("metadata", {}).get("subsets"):
            found[said["task"]] = tuple(f"{said['task']}_{subset}" for subset in subsets)
    return found


@cache
def lm_eval_index() -> dict[str, Any]:
    """lm-eval's entries of its own tasks, groups and tags; reading its thousands of files takes seconds."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # some of the files name a task twice
    return dict(TaskManager().task_index)


def parse(name: str) -> tuple[str, int | None]:
    """`arc_easy@2` -> ("arc_easy", 2); without a number the task's own, None. UserError for what is no number."""
    task, at, shots = name.partition("@")
    if at and not (shots.isascii() and shots.isdecimal() and int(shots) <= 100):
        raise UserError(f"evaluation.tasks: {name}: after @ stands the number of examples in the prompt, e.g. {task}@2")
    return task, int(shots) if at else None


def members(name: str) -> list[str]:
    """The members of a group, with its number of examples; [] for a task."""
    task, at, shots = name.partition("@")
    return [f"{member}{at}{shots}" for member in groups().get(task, ())]


def leaves(names: list[str]) -> list[str]:
    """The tasks to score, every one once: groups are replaced by their members."""

    def walk(name: str) -> Iterator[str]:
        inner = members(name)
        if not inner:
            yield name
        for member in inner:
            yield from walk(member)

    return list(dict.fromkeys(leaf for name in names for leaf in walk(name)))


def all_groups(names: list[str]) -> dict[str, list[str]]:
    """The groups among `names` and within them, inner ones first, with their members."""
    found: dict[str, list[str]] = {}
    for name in names:
        if inner := members(name):
            found |= {**all_groups(inner), name: inner}
    return found


def check_known(names: list[str]) -> None:
    """UserError for a task that is neither ours nor lm-eval's, and for a number of examples beside lm-eval's groups.

    Where lm-eval is not installed (its tasks run in a container), they tell.
    """
    others = [name for name in names if parse(name)[0] not in task_files()]
    if not others or not find_spec("lm_eval"):
        return
    for name in others:
        task, shots = parse(name)
        if shots is not None and task in lm_eval_index() and lm_eval_index()[task].kind.name != "TASK":
            raise UserError(f"evaluation.tasks: {name}: {task} is a group of lm-eval's; name single tasks, or {task}")
        if task not in lm_eval_index():
            raise UserError(
                f"evaluation.tasks: {task}: neither ours (`python -m prox_hpc.evaluate list`) nor lm-eval's "
                "(`lm_eval ls tasks`); check the name"
            )


def check(names: list[str]) -> None:
    """UserError for an empty or doubled list, a bad number of examples, and a name of ours that does not exist."""
    if not names:
        raise UserError("evaluation.tasks: is empty; name at least one, see `python -m prox_hpc.evaluate list`")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"evaluation.tasks: {twice} stands there twice; take one out")
    for name in leaves(names):
        task, shots = parse(name)
        if task.startswith(OURS) and task not in task_files():
            raise UserError(f"evaluation.tasks: {task}: no such task; see `python -m prox_hpc.evaluate list`")
        if task in task_files() and shots:
            raise UserError(f"evaluation.tasks: {name}: our own tasks are zero-shot; write {task}, or name lm-eval's")
