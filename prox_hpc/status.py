"""`python -m prox_hpc.status RUN`: how a study stands, from any login node; `--json`, `--watch`.

Exit status 0 while nothing failed, 1 when a step failed, was cancelled or stopped, 2 for a wrong run folder.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from prox_hpc.errors import EXIT_USER_ERROR, UserError
from prox_hpc.study.status import Row, failures, read, table, to_json
from prox_hpc.study.store import load_run

OVER = {"done", "failed", "cancelled", "stopped"}


def failed(rows: list[Row]) -> bool:
    return any(row.state in ("failed", "cancelled", "stopped") for row in rows)


def watch(run: Path, console: Console) -> list[Row]:
    """Redraw until every step is over."""
    rows = read(run)
    with Live(table(rows, str(run)), console=console) as live:
        while not all(row.state in OVER for row in rows):
            time.sleep(2)
            rows = read(run)
            live.update(table(rows, str(run)))
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m prox_hpc.status", description="How a study stands.")
    parser.add_argument("run", type=Path, help="run folder, e.g. outputs/runs/quickstart")
    parser.add_argument("--json", action="store_true", help="print one JSON array of steps")
    parser.add_argument("--watch", action="store_true", help="redraw every two seconds until the study is over")
    given = parser.parse_args(arguments)
    console = Console()
    try:
        if given.watch and not given.json:
            rows = watch(given.run, console)
        else:
            rows = read(given.run)
            print(json.dumps(to_json(rows), indent=1)) if given.json else console.print(table(rows, str(given.run)))
        if not given.json:
            for line in failures(rows, Path(load_run(given.run)[0]["store"])):
                console.print(line, style="red", soft_wrap=True, highlight=False, markup=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 0
    return 1 if failed(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
