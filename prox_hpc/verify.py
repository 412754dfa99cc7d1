"""`python -m prox_hpc.verify RUN`: check a run's finished corpora offline, from their files; name damage and remedy.

Exit status 0 when all is well, 1 when something is wrong, 2 for a wrong run folder.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from prox_hpc.errors import EXIT_USER_ERROR, UserError
from prox_hpc.study.store import is_published, load_run
from prox_hpc.task import Task

KINDS = ("pilot", "refine", "execute")
"""Kinds of steps that can be checked."""


def finished(run: Path) -> Iterator[Task]:
    """The run's published steps to check, each as its first task. UserError when `run` is no run folder."""
    config, steps = load_run(run)
    store = Path(config["store"])
    for step in steps:
        if step.kind in KINDS and is_published(store, step):
            yield Task(step, 0, store)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m prox_hpc.verify",
        description="Read a run's refined corpora, their programs and the documents they were made of once more, "
        "execute the programs again, and compare every count, hash and digest with what was written down. Nothing is "
        "changed.",
    )
    parser.add_argument("run", type=Path, help="run folder, e.g. outputs/runs/quickstart")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    try:
        tasks = list(finished(given.run))
        found = {task.step.address: _problems(task, given.json) for task in tasks}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    if given.json:
        print(json.dumps({"artifacts": found}, indent=1))
    elif not tasks:
        print(f"{given.run}: no refined corpus is finished yet")
    return 1 if any(found.values()) else 0


def _problems(task: Task, quiet: bool) -> list[str]:
    from prox_hpc.refine.verify import failures, problems

    found = []
    for problem in problems(task):
        found.append(problem)
        if not quiet:
            print(problem, flush=True)
    if not quiet:
        for reason in failures(task).values():
            print(f"  a block was left out, as corpus.allow_failed_blocks allows: {reason}")
        print(f"{'x' if found else '+'} {task.step.address}  {f'{len(found)} problems' if found else 'all is well'}")
    return found


if __name__ == "__main__":
    sys.exit(main())
