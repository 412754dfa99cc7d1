"""`python -m prox_hpc.report RUN`: build a report again at any time; `... compare RUN RUN`: studies side by side."""

import argparse
import errno
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from prox_hpc.config import Charges
from prox_hpc.errors import EXIT_USER_ERROR, UserError

ROWS = [field.name for field in fields(Charges)]
EPILOG = """\
The switches stay in force until the report is built again. What they are for good is `report.charge` and
`report.prorate` of the study's configuration.
  python -m prox_hpc.report outputs/runs/quickstart --charge sft=off --prorate run
  python -m prox_hpc.report compare outputs/runs/refiner_size/*
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m prox_hpc.report",
        description="Build the report of a study again from what it has published, into RUN/report.\n"
        "Nothing is launched. `compare RUN RUN ...` instead sets several studies side by side.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", type=Path, help="run folder, e.g. outputs/runs/quickstart")
    made.add_argument(
        "--charge",
        metavar="ROW=on|off",
        action="append",
        default=[],
        help=f"switch a row of the ledger in or out; may be repeated; rows: {', '.join(ROWS)}",
    )
    made.add_argument(
        "--prorate",
        choices=("none", "run", "pool"),
        help="charge passes, filtering and tokenising in full, by the share of the run (as the paper) or of the "
        "pool that was trained",
    )
    made.add_argument("--json", action="store_true", help="print report.json instead of the summary")
    return made


def comparer() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m prox_hpc.report compare",
        description="Studies side by side, e.g. the points of a multirun over refiners: refiner, share kept, score, "
        "saving, break-even. Prints the table and writes comparison.csv and comparison.json into the folder the runs "
        "lie in, or into the current one when they lie in several.",
    )
    made.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="run folder with a report")
    made.add_argument("--json", action="store_true", help="print the rows as JSON instead of a table")
    return made


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["compare"]:
            return compare(comparer().parse_args(arguments[1:]))
        return rebuild(parser().parse_args(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


def rebuild(given: argparse.Namespace) -> int:
    """Build and print one report."""
    switches = switched(given.charge, given.prorate)
    from rich.console import Console

    from prox_hpc.report.collect import Study
    from prox_hpc.report.summary import summary_text
    from prox_hpc.report.task import write
    from prox_hpc.study.plan import check_charges
    from prox_hpc.study.store import load_run
    from prox_hpc.task import Task

    config, steps = load_run(given.run)
    if not Path(config["store"]).is_dir():
        raise UserError(
            f"store={config['store']}: is not there, and {given.run} has its results in it; "
            f"mount it, or launch the study again"
        )
    step = next(step for step in steps if step.kind == "report")
    here = {"run_dir": str(given.run.resolve()), "resources": config["cluster"]["resources"]}
    study = Study.of(Task(replace(step, runtime={**step.runtime, **here}), 0, Path(config["store"])))
    settings = asdict(study.settings)
    settings |= {
        "charge": settings["charge"] | switches["charge"],
        "prorate": switches["prorate"] or settings["prorate"],
    }
    study = replace(study, config={**study.config, "report": settings})
    check_charges(study.settings, given="refine" in study.roles and not study.config["refiner"]["train"])
    with writing(study.run / "report"):
        report = write(study)
    if given.json:
        print(json.dumps(report, indent=1))
        return 0
    console = Console()
    for part in summary_text(report):
        console.print(part)
    console.print(f"\nreport: {study.run / 'report' / 'report.html'}", soft_wrap=True, highlight=False)
    return 0


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """UserError where this folder cannot be written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "ask who owns it"
        raise UserError(f"{folder}: cannot be written ({error.strerror}); {remedy}") from error


def switched(charge: list[str], prorate: str | None) -> dict[str, Any]:
    """{charge: {row: bool}, prorate}. UserError for a row nobody knows, or a word that is neither on nor off."""
    rows = {}
    for item in charge:
        row, _, word = item.partition("=")
        if row not in ROWS:
            raise UserError(f"--charge {item}: no such row; one of {', '.join(ROWS)}")
        if word not in ("on", "off"):
            raise UserError(f"--charge {item}: write {row}=on or {row}=off")
        rows[row] = word == "on"
    return {"charge": rows, "prorate": prorate}


def compare(given: argparse.Namespace) -> int:
    """Print and write the table of several studies."""
    from prox_hpc.report.compare import common_folder, rows_of, table, write

    rows = rows_of(given.runs)
    folder = common_folder(given.runs)
    with writing(folder):
        written = write(folder, rows)
    if given.json:
        print(json.dumps(rows, indent=1))
        return 0
    from rich.console import Console

    console = Console()
    console.print(table(rows))
    console.print(f"\n{' and '.join(map(str, written))}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
