"""Step `report`: RUN/report/report.json, report.html and CSVs from whatever the study has published.

Runs last and always, also when steps failed: a partial study gives a partial report that says what is missing. It can
be made again at any time, so its files are replaced, not published.
"""

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from prox_hpc.publish import temporary
from prox_hpc.report.build import build
from prox_hpc.report.collect import Study, checkpoints
from prox_hpc.report.html import render
from prox_hpc.report.summary import summary_text
from prox_hpc.task import Task

SCORE_COLUMNS = ("arm", "seed", "step", "tokens", "flops", "exact_flops", "task", "metric", "value", "stderr")


def run(task: Task) -> None:
    """Build the report into `runtime["run_dir"]/report` and print its summary."""
    for part in summary_text(write(Study.of(task))):
        Console().print(part)


def write(study: Study) -> dict[str, Any]:
    """Build the report into RUN/report; -> its content."""
    folder = study.run / "report"
    folder.mkdir(parents=True, exist_ok=True)
    report = build(study)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    replace_text(folder / "report.json", text)
    replace_text(folder / "report.html", render(report))
    replace_text(folder / "scores.csv", to_csv(SCORE_COLUMNS, score_rows(study)))
    for name in ("arms", "ledger"):
        rows: list[dict[str, Any]] = report[name]
        replace_text(folder / f"{name}.csv", to_csv(rows[0], rows))
    return report


def score_rows(study: Study) -> Iterable[dict[str, Any]]:
    """Every score of every checkpoint, one row each."""
    for run in study.runs():
        for entry in checkpoints(run):
            for name, values in entry["scores"].items():
                for metric, value in values.items():
                    if metric.endswith("_stderr"):
                        continue
                    about = {key: entry.get(key) for key in ("step", "tokens", "flops", "exact_flops")}
                    stderr = values.get(f"{metric}_stderr")
                    row = {"arm": run.arm, "seed": run.seed, **about, "task": name, "metric": metric}
                    yield row | {"value": value, "stderr": stderr}


def to_csv(columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> str:
    """CSV text with a header; null is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def replace_text(path: Path, text: str) -> None:
    """Give `path` this content at once, for readers who look meanwhile."""
    draft = temporary(path)
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
