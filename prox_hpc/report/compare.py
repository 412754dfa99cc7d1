"""Several studies side by side, from their reports: what each refiner kept, scored, saved and cost."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from prox_hpc.errors import UserError
from prox_hpc.report.headline import flops, number, percent, ratio
from prox_hpc.report.summary import break_even
from prox_hpc.report.task import replace_text, to_csv


def rows_of(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per study, for its refined arm and first metric; smallest refiner first. UserError without a report."""
    rows = [row_of(load(run), run) for run in runs]
    return sorted(rows, key=lambda row: (row["refiner_parameters"] or 0, row["run"]))


def load(run: Path) -> dict[str, Any]:
    """A run's report.json; UserError when there is none, or one that is damaged or old."""
    path = run / "report" / "report.json"
    if not path.exists():
        if not (run / "study.json").exists():
            raise UserError(f"{run}: is not a run folder (no study.json); runs are in OUTPUT/runs/")
        raise UserError(f"{run}: has no report yet; build it with `python -m prox_hpc.report {run}`")
    try:
        report: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path}: is damaged ({error}); build it again with `python -m prox_hpc.report {run}`"
        ) from error
    if "chosen" not in report:
        raise UserError(f"{path}: was made by an older prox_hpc; build it again with `python -m prox_hpc.report {run}`")
    return report


def row_of(report: dict[str, Any], run: Path) -> dict[str, Any]:
    """What `comparison.csv` holds of a study; null where it has no such figure."""
    arm, base = report["arm"], report["baseline"]
    metric = report["metrics"][0] if report["metrics"] else None
    finals = {name: line["mean"][-1] for name, line in metric["curves"].items()} if metric else {}
    matched = metric["matched"].get(arm) if metric else None
    reading = matched["to_baseline"] if matched else None
    pays = next((p for p in report["break_even"] if _is(p, arm, metric, "flops")), None)
    about = report["refiner_about"]
    sizes = [size for size in about.get("parameters", {}).values() if size]
    saving, charged = (reading[key] if reading else None for key in ("saving", "saving_with_cost"))
    return {
        "run": str(run),
        "complete": report["complete"],
        "refiner": about.get("name"),
        "refiner_parameters": max(sizes, default=None),
        "doc_f1": report["refiner"].get("doc", {}).get("f1"),
        "line_f1": report["refiner"].get("line", {}).get("f1"),
        "arm": arm,
        "token_retention": next((row["token_retention"] for row in report["arms"] if row["arm"] == arm), None),
        "task": metric["task"] if metric else None,
        "baseline_score": finals.get(base),
        "score": finals.get(arm),
        "saving": saving["ratio"] if saving else None,
        "saving_bound": saving["bound"] if saving else None,
        "saving_low": saving["low"] if saving else None,
        "saving_high": saving["high"] if saving else None,
        "saving_charged": charged["ratio"] if charged else None,
        "refining_flops": report["refining_flops"],
        "break_even_tokens": pays["tokens"] if pays else None,
        "break_even_bound": pays["bound"] if pays else None,
        "break_even_passes": pays["passes"] if pays else None,
        "pays": None if pays is None else pays["tokens"] is not None,
        "prorate": report["charge"]["prorate"],
        "charged": " ".join(row for row, on in report["charge"]["rows"].items() if on),
    }


def _is(pays: dict[str, Any], arm: str | None, metric: dict[str, Any] | None, unit: str) -> bool:
    return metric is not None and (pays["arm"], pays["task"], pays["unit"]) == (arm, metric["task"], unit)


def common_folder(runs: Sequence[Path]) -> Path:
    """The folder that all the runs lie in, as the points of a multirun; the current one when they lie in several."""
    parents = {run.resolve().parent for run in runs}
    return parents.pop() if len(parents) == 1 else Path.cwd()


def write(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """comparison.csv and comparison.json; -> their paths."""
    texts = {"csv": to_csv(rows[0], rows), "json": json.dumps(rows, indent=1, allow_nan=False) + "\n"}
    paths = [folder / f"comparison.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        replace_text(path, text)
    return paths


def table(rows: list[dict[str, Any]]) -> Table:
    """For the terminal; the files have more. Rows that are not charged alike cannot be compared, and it says so."""
    alike = len({(row["prorate"], row["charged"]) for row in rows}) == 1
    caption = None if alike else "not charged alike: see `charged` and `prorate` in the files"
    shown = Table(box=None, pad_edge=False, header_style="dim", caption=caption, caption_style="yellow")
    for column in ("refiner", "size", "kept", "task", "score", "saving", "charged", "pays from", "run"):
        shown.add_column(column, overflow="fold", no_wrap=column not in ("task", "run"))
    for row in rows:
        savings = [{"ratio": row[key], "bound": row["saving_bound"]} for key in ("saving", "saving_charged")]
        told, charged = ("none" if saving["ratio"] == 0 else ratio(saving) for saving in savings)
        pays = {"tokens": row["break_even_tokens"], "bound": row["break_even_bound"]}
        shown.add_row(
            row["refiner"] or "–",
            flops(row["refiner_parameters"]),
            percent(row["token_retention"]),
            row["task"] or "–",
            f"{number(row['baseline_score'])} > {number(row['score'])}",
            told,
            charged,
            break_even(pays if row["pays"] is not None else None).removesuffix(" tokens"),
            ("" if row["complete"] else "(partial) ") + Path(row["run"]).name,
        )
    return shown
