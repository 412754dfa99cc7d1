"""report.html: one self-contained page from report.json's content (inline style and plots, nothing from a network)."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from prox_hpc import page
from prox_hpc.report import figure, headline
from prox_hpc.report.ledger import ROWS
from prox_hpc.report.summary import counts

HERE = Path(__file__).parent
FILTERS = ("flops", "count", "percent", "number", "times", "ends", "hours", "short")
SHOWN = 4
"""Plots shown at once; those of further tasks are folded. Of tables the first is."""


def render(report: dict[str, Any]) -> str:
    """The page. Everything but our own SVG is escaped: names and errors come from users and programs."""
    folder = Path(report["run"]) / "report"
    return page.render(
        HERE / "report.html.jinja",
        {**{name: getattr(headline, name) for name in FILTERS}, "counts": counts},
        **report,
        plots=plots(report),
        shown=SHOWN,
        uneven=headline.UNEVEN,
        drawn={arm for metric in report["metrics"] for arm in metric["curves"]},
        method=next((m for metric in report["metrics"] for m in metric["matched"].values()), None),
        swatch=lambda number: Markup(figure.swatch(number)),
        table=score_table(report),
        counted=[row for row in ROWS if any(arm["parts"].get(row, 0) != 0 for arm in report["charge"]["arms"])],
        unknown=lambda row, arm: unknown(report["ledger"], row, arm),
        link=lambda path: quote(os.path.relpath(path, folder)),
        name_of=os.path.basename,
    )


def unknown(ledger: list[dict[str, Any]], row: str, arm: str) -> str:
    """Why the FLOPs that an arm is charged with in a row of the ledger are not known."""
    own = [one for one in ledger if one["row"] == row and one["arm"] in (None, arm) and one["flops"] is None]
    return "; ".join(dict.fromkeys(one["note"] for one in own if one["note"]))


def plots(report: dict[str, Any]) -> list[dict[str, Any]]:
    """{metric, unit, svg}: every metric against FLOPs, and after the first one the same against hours."""
    arms = [row["arm"] for row in report["arms"]]
    drawn = []
    for metric in report["metrics"]:
        if metric["curves"]:
            drawn.append({"metric": metric, "unit": "FLOPs", "svg": Markup(figure.plot(metric, arms, report["arm"]))})
    if drawn and any(line["hours"] for line in drawn[0]["metric"]["curves"].values()):
        unit, metric = report["hours"]["unit"], drawn[0]["metric"]
        drawn.insert(1, {"metric": metric, "unit": unit, "svg": Markup(figure.plot(metric, arms, report["arm"], unit))})
    return drawn


def score_table(report: dict[str, Any]) -> dict[str, Any]:
    """Final scores as the paper lays them out: {columns: metrics, rows: [{arm, cells}]}; accuracies in percent.

    Tasks are columns in the configured order, their means are the last, what is better low (bits per byte) stands
    first. The best of a column is marked as shown; gold, which is a ceiling and no contender, is left out of that.
    """
    order = {task: index for index, task in enumerate(report["tasks"])}

    def place(metric: dict[str, Any]) -> tuple[bool, bool, int]:
        return metric["higher_is_better"], metric["task"] in report["means"], order.get(metric["task"], len(order))

    columns = sorted(report["metrics"], key=place)
    scores = {(row["arm"], row["task"]): row for row in report["scores"]}
    best = {}
    for metric in columns:
        rivals = [scores[a["arm"], metric["task"]]["mean"] for a in report["arms"] if a["kind"] != "gold"]
        known = [value for value in rivals if value is not None]
        if len(known) > 1:
            best[metric["task"]] = _shown(max(known) if metric["higher_is_better"] else min(known), metric)
    rows = []
    for arm in report["arms"]:
        cells = []
        for metric in columns:
            score = scores[arm["arm"], metric["task"]]
            shown = _shown(score["mean"], metric)
            marked = arm["kind"] != "gold" and score["mean"] is not None and shown == best.get(metric["task"])
            cells.append({"value": score["mean"], "shown": shown, "sd": _shown(score["sd"], metric), "best": marked})
        rows.append({"arm": arm["arm"], "cells": cells})
    return {"columns": columns, "rows": rows}


def _shown(value: float | None, metric: dict[str, Any]) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if metric["higher_is_better"] else f"{value:.3f}"
