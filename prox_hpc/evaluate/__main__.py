"""`python -m prox_hpc.evaluate list|fetch`: which evaluation tasks there are, and their data for nodes without network.

Exit status 0, or 2 for the user's mistake (an unknown task, no network).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prox_hpc.errors import EXIT_USER_ERROR, UserError
from prox_hpc.evaluate import catalogue

FETCH = """\
Write the data of evaluation tasks into FOLDER, from the hub (needs network: run it on a login node), and what is there
into its manifest.json. Fetching again goes on with what is missing. Then: launch ... evaluation.data=FOLDER.
"""
FETCH_EXAMPLE = """\
  fetch /data/eval                                    the ten tasks of the ProX paper
  fetch /data/eval --tasks prox_eight lambada_openai  the data-selection comparison, and another of lm-eval's tasks
  fetch /data/eval --source /data/hub                 from a copy: /data/hub/allenai/ai2_arc, /data/hub/cais/mmlu ...
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "list":
            _list()
        else:
            _fetch(given.folder, given.tasks, given.source)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prox_hpc.evaluate", description="Evaluation tasks and their data for nodes without network."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="our tasks and groups, and where their data is from")
    command = commands.add_parser(
        "fetch",
        help="prepare a folder with the data of tasks",
        description=FETCH,
        epilog=FETCH_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("folder", type=Path, metavar="FOLDER", help="where the tasks of a study can read it")
    command.add_argument(
        "--tasks", nargs="+", default=["prox_ten"], metavar="NAME", help="our tasks and groups, or lm-eval's own tasks"
    )
    command.add_argument("--source", type=Path, metavar="FOLDER", help="a copy of the hub's datasets, by their names")
    return parser


def _list() -> None:
    for name, members in catalogue.groups().items():
        named = f"{members[0]} ... {members[-1]}" if len(members) > 10 else " ".join(members)
        print(f"{name}: the mean of {len(members)}: {named}")
    print()
    for name, said in catalogue.task_files().items():
        if said.heldout:
            print(f"{name}: {said.heldout} of the held-out data")
        elif said.subset is None:
            print(f"{name}: {said.dataset}{f' {said.config}' if said.config else ''}, {said.split}")
    subset = next(said for said in catalogue.task_files().values() if said.subset)
    print(f"{subset.path.stem}_SUBSET: {subset.dataset} SUBSET, {subset.split}")
    print("\nAny other name is lm-eval's own (`lm_eval ls tasks`); NAME@2: that with two examples.")


def _fetch(folder: Path, tasks: list[str], source: Path | None) -> None:
    from prox_hpc.evaluate.fetch import fetch

    count = 0
    for name, said, there in fetch(folder, tasks, source):
        rows = ", ".join(f"{split} {of.rows} of {of.of} rows" for split, of in said.splits.items())
        print(f"{name}: {said.dataset}: {rows}{', was there' if there else ''}", flush=True)
        count += 1
    print(f"{count} tasks are in {folder}; launch with evaluation.data={folder.resolve()}")


if __name__ == "__main__":
    sys.exit(main())
