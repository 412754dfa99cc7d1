"""`python -m prox_hpc.inspect RUN`: look at documents with what their programs removed and replaced.

Every document is read and its recorded programs are executed again as the run did; a sample of those that match is
shown in the terminal, or written as one HTML page. Exit status 2 for a wrong run or when nothing matches.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prox_hpc.errors import EXIT_USER_ERROR, UserError

if TYPE_CHECKING:
    from prox_hpc.inspection.select import Selection, Wanted
    from prox_hpc.recorded import Recorded

SHOWN = 20
ON_PAGE = 1000
EPILOG = """\
Each of the options that choose must hold; --status and --op take several names, of which one must.
  inspect RUN --status truncated --op normalize
  inspect RUN --refused --reason "outside the chunk" --html refused.html
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m prox_hpc.inspect",
        description="Look at documents with what their programs removed and replaced.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", type=Path, help="run folder, e.g. outputs/runs/quickstart, or a refine artifact")
    made.add_argument("--refiner", metavar="NAME", help="whose programs, if the run has several")
    choose = made.add_argument_group("which documents")
    choose.add_argument(
        "--status",
        metavar="S[,S]",
        type=_names,
        default=(),
        help="final status of one of its programs: ok partial truncated malformed oversized no_program misplaced",
    )
    choose.add_argument(
        "--op",
        metavar="NAME[,NAME]",
        type=_names,
        default=(),
        help="name of one of its operations: remove_lines normalize keep_chunk",
    )
    choose.add_argument("--refused", action="store_true", help="an operation (with --op, one of these) was refused")
    choose.add_argument("--outcome", metavar="O", help="untouched, edited or dropped")
    choose.add_argument("--reason", metavar="TEXT", help="part of a reason: of dropping, refusing, or a program's")
    choose.add_argument("--domain", metavar="HOST", help="host of its url, or what the host ends in")
    choose.add_argument("--id", help="the document with this id")
    made.add_argument(
        "--sample",
        metavar="N",
        type=int,
        help=f"how many to draw of those that match (default {SHOWN}, on a page {ON_PAGE:,})",
    )
    made.add_argument("--seed", metavar="N", type=int, default=0, help="of the draw (default 0)")
    made.add_argument("--html", metavar="FILE", type=Path, help="write a page that needs no network instead")
    return made


def _names(value: str) -> tuple[str, ...]:
    return tuple(name for name in value.replace(",", " ").split())


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever the terminal's encoding is
    try:
        inspect(given)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except BrokenPipeError:  # `| head`; Python would complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0


def inspect(given: argparse.Namespace) -> None:
    """Draw and show. UserError for what the user can mend."""
    wanted = _wanted(given)
    size = given.sample if given.sample is not None else ON_PAGE if given.html else SHOWN
    if size < 1:
        raise UserError(f"--sample {size}: give a number of documents, at least 1")
    if given.html and not given.html.parent.is_dir():
        raise UserError(f"--html {given.html}: there is no folder {given.html.parent}; make it or give another file")

    from prox_hpc.recorded import open_recorded

    recorded = open_recorded(given.run, given.refiner)
    selection = _select(recorded, wanted, size, given.seed)
    if given.html:
        from prox_hpc.inspection.page import write

        write(given.html, recorded, selection, str(wanted), _drawn(selection, given.seed))
        print(f"{given.html}: {_drawn(selection, given.seed)}")
        return
    from rich.console import Console

    from prox_hpc.inspection.terminal import show

    console = Console(highlight=False)
    for view in selection.views:
        show(console, view)
        console.print()
    console.print(_drawn(selection, given.seed), soft_wrap=True)


def _wanted(given: argparse.Namespace) -> "Wanted":
    """UserError for names that do not exist."""
    from prox_hpc.inspection.select import OPERATIONS, STATUSES, Wanted
    from prox_hpc.refine.records import OUTCOMES

    outcomes = () if given.outcome is None else (given.outcome,)
    for option, values, known in (
        ("--status", given.status, STATUSES),
        ("--op", given.op, OPERATIONS),
        ("--outcome", outcomes, OUTCOMES),
    ):
        for value in values:
            if value not in known:
                raise UserError(f"{option} {value}: is not known; one of {', '.join(known)}")
    return Wanted(given.status, given.op, given.refused, given.outcome, given.reason, given.domain, given.id)


def _select(recorded: "Recorded", wanted: "Wanted", size: int, seed: int) -> "Selection":
    from rich.console import Console

    from prox_hpc.inspection.select import select

    with Console(stderr=True).status("reading documents") as status:

        def tell(documents: int, matched: int) -> None:
            status.update(f"{documents:,} documents read, {matched:,} match")

        return select(recorded, recorded.execution, wanted, size, seed, tell)


def _drawn(selection: "Selection", seed: int) -> str:
    """How many of how many, in words."""
    shown = len(selection.views)
    matched = f"{selection.matched:,} of {selection.documents:,} documents match"
    return f"{matched}, all shown" if shown == selection.matched else f"{matched}, {shown:,} drawn (seed {seed})"


if __name__ == "__main__":
    sys.exit(main())
