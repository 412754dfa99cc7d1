"""`python -m prox_hpc.replay RUN`: execute a run's recorded programs again, under other settings, into a new corpus.

No model and no GPU are needed: the programs are the dataset. The new corpus is an ordinary `execute` artifact in the
run's store, made by the same code as an arm's, with its manifest and digests; with the run's own settings it is the
run's own refined corpus, byte for byte. What changed against the run is printed.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from prox_hpc.errors import EXIT_USER_ERROR, UserError
from prox_hpc.study.plan import PROFILES
from prox_hpc.task import Step

if TYPE_CHECKING:
    from prox_hpc.recorded import Recorded
    from prox_hpc.refine.records import Execution

EXAMPLES = """\
examples:
  python -m prox_hpc.replay outputs/runs/quickstart --doc-threshold 0.5
  python -m prox_hpc.replay outputs/runs/quickstart --keep-share 0.3 --min-words 30
  python -m prox_hpc.replay outputs/runs/quickstart --profile deletion_only --name deletions

What is not given stays as the run executed it. To train on the result, give its folder as a corpus
(corpus=files corpus.path=FOLDER/blocks), or add an arm with these settings to the study."""


@dataclass(frozen=True)
class Replay:
    """What is to be done: the step, and the settings as they differ from the run's."""

    recorded: "Recorded"
    execution: "Execution"
    step: Step

    @property
    def folder(self) -> Path:
        return self.recorded.store / "artifacts" / self.step.address

    @property
    def published(self) -> bool:
        return (self.folder / "artifact.json").exists()

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.folder / "artifact.json").read_text())["summary"]
        return summary


def plan(given: argparse.Namespace) -> Replay:
    """From the command line to the step. UserError for settings that cannot be replayed."""
    from prox_hpc.recorded import open_recorded

    recorded = open_recorded(given.run, given.refiner)
    execution = _execution(given, recorded)
    _check(execution, recorded)
    settings = {
        "kind": "refined",
        "doc": execution.doc,
        "chunk": execution.chunk,
        "profile": execution.profile,
        "doc_threshold": execution.threshold,
        "checks": asdict(execution.checks),
        "caps": asdict(execution.caps),
        "quarantine": execution.quarantine,
    }
    source = {"source": recorded.step.config["source"]} if "source" in recorded.step.config else {}
    inputs = {role: address for role, address in recorded.step.inputs.items() if role == "corpus"}
    inputs["programs"] = recorded.step.address
    tasks = max(1, min(given.workers, len(recorded.source.blocks)))
    step = Step("execute", given.name, {**source, "arm": settings}, inputs, tasks=tasks)
    return Replay(recorded, execution, step)


def _execution(given: argparse.Namespace, recorded: "Recorded") -> "Execution":
    own = recorded.execution
    checks = {key: getattr(given, key) for key in ("min_words", "max_removed") if getattr(given, key) is not None}
    caps = dict(_cap(text, asdict(own.caps)) for text in given.cap)
    if given.doc_threshold is not None and not own.doc:
        raise UserError("--doc-threshold: the refine step ran without its doc stage, so there are no scores")
    threshold = own.threshold if given.doc_threshold is None else given.doc_threshold
    execution = replace(
        own,
        doc=own.doc and not given.no_doc,
        chunk=own.chunk and not given.no_chunk,
        profile=given.profile or own.profile,
        threshold=threshold,
        checks=replace(own.checks, **checks),
        caps=replace(own.caps, **caps),
    )
    if given.keep_share is None:
        return execution
    return replace(execution, threshold=threshold_of_share(recorded, given.keep_share))


def _cap(text: str, known: dict[str, Any]) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if name not in known:
        raise UserError(f"--cap {text}: unknown cap {name!r}; one of {', '.join(known)}")
    try:
        number = type(known[name])(value)
    except ValueError:
        number = -1
    if number < (0 if name.startswith("growth") else 1):
        raise UserError(f"--cap {text}: give a positive number, e.g. {name}={known[name]}")
    return name, number


def _check(execution: "Execution", recorded: "Recorded") -> None:
    """UserError when the programs do not cover these settings."""
    config = recorded.step.config
    own = recorded.execution
    if not (execution.doc or execution.chunk):
        raise UserError("neither the doc stage nor the chunk stage is left; leave out --no-doc or --no-chunk")
    if execution.chunk and not execution.doc and own.doc and not config.get("program_all"):
        raise UserError(
            "--no-doc: the refine step wrote chunk programs only for documents that its doc stage let through; "
            "refine again with an arm that has doc=false"
        )
    lowest = own.threshold - config["refiner"].get("chunk_margin", 0.0)
    if execution.doc and execution.chunk and not config.get("program_all") and execution.threshold < lowest:
        raise UserError(
            f"--doc-threshold {execution.threshold:g}: documents that score below {lowest:g} have no chunk programs; "
            "give a higher one (or --no-chunk), or refine again with a larger refiner.chunk_margin"
        )
    if execution.checks.max_removed <= 0 or execution.checks.min_words < 0:
        raise UserError("--max-removed must be above 0, --min-words not below 0")


def threshold_of_share(recorded: "Recorded", share: float) -> float:
    """The doc threshold that keeps this share of the scored documents (the best ones; ties may keep a few more)."""
    import numpy as np
    import pyarrow.parquet as pq

    from prox_hpc.refine.pilot import threshold_at
    from prox_hpc.refine.records import programs_path

    if not 0 < share <= 1:
        raise UserError(f"--keep-share {share:g}: give a share between 0 and 1, e.g. 0.3")
    if not recorded.execution.doc:
        raise UserError("--keep-share: the refine step ran without its doc stage, so there are no scores")
    paths = [programs_path(recorded.programs, block.index) for block in recorded.source.blocks]
    columns = [pq.read_table(path, columns=["doc_score"])["doc_score"].drop_null().to_numpy() for path in paths]
    return threshold_at(np.concatenate(columns), share)


def execute(replay: Replay, console: Console) -> None:
    """Run the step's tasks as processes of this machine. RuntimeError with the reason when one fails."""
    from prox_hpc.cluster.local import LocalRun
    from prox_hpc.config import Cluster
    from prox_hpc.study.plan import Plan
    from prox_hpc.study.store import task_states

    store, step = replay.recorded.store, replay.step
    run = LocalRun(Plan((step,)), store, Cluster(slots=step.tasks))
    with _progress(console) as progress:
        bar = progress.add_task("replay", total=len(replay.recorded.source.blocks))

        def tick(local: LocalRun) -> None:
            progress.update(bar, completed=sum(state.get("done", 0) for state in task_states(store, step)))

        fine = run.run(tick)
    if not fine:
        raise RuntimeError(run.failure(run.runs[step.address]))


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:g}/{task.total:g} blocks"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        yield progress


def to_json(replay: Replay) -> dict[str, Any]:
    """What came out: folder, settings, and the summary beside the run's own."""
    return {
        "folder": str(replay.folder),
        "settings": asdict(replay.execution),
        "run_settings": asdict(replay.recorded.execution),
        "run": replay.recorded.summary,
        "replay": replay.summary,
    }


def show(replay: Replay, console: Console) -> None:
    """Print what changed against the run."""
    run, now = replay.recorded.summary, replay.summary
    own, new = _flat(replay.recorded.execution), _flat(replay.execution)
    changed = [f"{key} {own[key]} -> {new[key]}" for key in own if own[key] != new[key]]
    console.print(f"settings: {', '.join(changed) or 'as the run itself'}", highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "run", "replay", "change"):
        table.add_column(name, justify="left" if not name else "right")
    rows = [(name, run["documents"][name], now["outcomes"].get(name, 0)) for name in ("untouched", "edited", "dropped")]
    rows.append(("failed to read", run["documents"]["failed"], now["outcomes"]["failed"]))
    rows.append(("documents kept", run["documents"]["kept"], now["documents_out"]))
    rows.append(("characters kept", run["characters_out"], now["characters_out"]))
    for reason in sorted({*run["reasons"], *now["reasons"]} - {"blank"}):
        rows.append((f"dropped: {reason}", run["reasons"].get(reason, 0), now["reasons"].get(reason, 0)))
    for name, before, after in rows:
        table.add_row(name, f"{before:,}", f"{after:,}", f"{after - before:+,}" if after != before else "=")
    console.print(table)
    moves = ", ".join(f"{name} {count:,}" for name, count in sorted(now["changes"].items(), key=lambda item: -item[1]))
    console.print(f"documents that came out otherwise: {moves or 'none'}", highlight=False)
    if now["digest_out"] == run["digest_out"]:
        console.print("the corpus is the run's own (same digest)")
    console.print(f"corpus: {replay.folder}", soft_wrap=True, highlight=False)


def _flat(execution: "Execution") -> dict[str, Any]:
    from prox_hpc.study.store import flatten

    return flatten(asdict(execution))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prox_hpc.replay",
        description="Execute a run's recorded programs again, under other settings, into a new corpus. No model runs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", type=Path, help="run folder, e.g. outputs/runs/quickstart, or a refine artifact")
    add("--refiner", help="which refiner's programs, if the run has several")
    add("--profile", choices=PROFILES, help="profile of the program language")
    threshold = parser.add_mutually_exclusive_group()
    threshold.add_argument("--doc-threshold", type=float, metavar="T", help="drop documents that score below T")
    threshold.add_argument("--keep-share", type=float, metavar="S", help="keep the share S of the scored documents")
    add("--min-words", type=int, metavar="N", help="drop edited documents with fewer words left")
    add("--max-removed", type=float, metavar="S", help="drop documents that lost this share of their words; 2: never")
    add("--no-doc", action="store_true", help="do not execute the doc programs")
    add("--no-chunk", action="store_true", help="do not execute the chunk programs")
    add("--cap", action="append", default=[], metavar="NAME=VALUE", help="another cap on programs, e.g. operations=64")
    add("--name", default="replay", help="name of the new corpus (default: replay)")
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes; default: one per core")
    add("--dry-run", action="store_true", help="print what would be made, and where")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    console = Console(stderr=given.json)
    try:
        if not given.name.replace("_", "").replace("-", "").replace(".", "").isalnum():
            raise UserError(f"--name {given.name}: give letters, digits, `-`, `_` and `.` only")
        replay = plan(given)
        if given.dry_run:
            print(json.dumps({"folder": str(replay.folder), "settings": asdict(replay.execution)}, indent=1))
            return 0
        if replay.published:
            console.print("this replay was made before:")
        else:
            execute(replay, console)
        print(json.dumps(to_json(replay), indent=1)) if given.json else show(replay, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except RuntimeError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
