"""The terminal summary of a report. Imports only rich, so that `launch` can print it at once."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from prox_hpc.report.headline import SIGNS, TOLD, count, early, ends, flops, number, percent, ratio, short

VERDICT_STYLE = {"saving": "bold green", "offset": "bold yellow", "negative": "bold red", "none": "bold red"}
SHOWN_MISSING = 8


def summary_text(report: dict[str, Any]) -> Iterator[RenderableType]:
    """Renderables for a rich console, from the content of report.json."""
    yield Text()
    style = VERDICT_STYLE.get(report["headline"]["verdict"], "bold")
    for sentence in report["headline"]["sentences"]:
        yield Text(sentence, style=style)
        style = ""
    for alarm in report["alarms"]:
        yield Text(f"! {alarm['text']}", style="yellow")
        for command in alarm["commands"]:
            yield Text(f"    {command}")
    yield Text()
    yield arm_table(report)
    if any(metric["matched"] for metric in report["metrics"]):
        yield Text()
        yield saving_table(report)
        yield Text()
        yield pays_table(report)
    yield from _refining(report)
    if report["missing"]:
        yield Text(f"\nThis report is partial: {len(report['missing'])} steps have no result.", style="bold yellow")
        for item in report["missing"][:SHOWN_MISSING]:
            yield Text(f"  {item['step']}: {item['state']} {item['error']}".rstrip())
        if len(report["missing"]) > SHOWN_MISSING:
            yield Text(f"  and {len(report['missing']) - SHOWN_MISSING} more")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def arm_table(report: dict[str, Any]) -> Table:
    """Tokens kept and final scores, by arm; the first tasks only, the page has all."""
    metrics = report["metrics"][:TOLD]
    table = _table("arms", "arm", "documents", "tokens", "kept", "epochs", *(m["task"] for m in metrics))
    scores = {(row["arm"], row["task"]): row for row in report["scores"]}
    for arm in report["arms"]:
        finals = [scores[arm["arm"], metric["task"]] for metric in metrics]
        table.add_row(
            arm["arm"],
            count(arm["documents"]),
            count(arm["tokens"]),
            percent(arm["token_retention"]),
            number(arm["epochs"], 1),
            *(spread(row) for row in finals),
        )
    return table


def spread(row: dict[str, Any]) -> str:
    """'0.412 ± 0.010' of a score row, the standard deviation over seeds."""
    return number(row["mean"]) + (f" ± {number(row['sd'])}" if row["sd"] is not None else "")


def counts(by_status: dict[str, int]) -> str:
    """'1,290 ok, 31 partial', the most frequent first."""
    ordered = sorted(by_status.items(), key=lambda item: -item[1])
    return ", ".join(f"{n:,} {status}" for status, n in ordered) or "none"


def saving_table(report: dict[str, Any]) -> Table:
    """FLOPs of each arm to the baseline's final score; the first tasks only."""
    title = f"training FLOPs to {report['baseline']}'s final score"
    level = next(f"{100 * m['level']:.0f} %" for metric in report["metrics"] for m in metric["matched"].values())
    table = _table(title, "arm", "task", "FLOPs", "saving", level, "all charged")
    for metric in report["metrics"][:TOLD]:
        for arm, matched in metric["matched"].items():
            reading = matched["to_baseline"]
            charged = reading["saving_with_cost"]
            reached = reading["arm_flops"] is not None
            table.add_row(
                arm,
                metric["task"],
                ("≤ " if early(reading["arm_outcome"]) else "") + flops(reading["arm_flops"])
                if reached
                else "not reached",
                ratio(reading["saving"]),
                ends(reading["saving"]) if reached else "",
                ratio(charged),
            )
    return table


def pays_table(report: dict[str, Any]) -> Table:
    """For the first task: the saving in hours, and when what an arm cost is paid back."""
    metric, unit = next(metric for metric in report["metrics"] if metric["matched"]), report["hours"]["unit"]
    pays = {row["arm"]: row for row in report["break_even"] if (row["task"], row["unit"]) == (metric["task"], "flops")}
    table = _table(
        f"{metric['task']} in {unit}, and when it pays (by FLOPs)",
        "arm",
        "saving",
        "all charged",
        "pays from",
        "passes",
    )
    for arm, matched in metric["matched"].items():
        told = matched["to_baseline"]["units"].get("hours")
        savings = [told[key] if told else None for key in ("saving", "saving_with_cost")]
        row = pays.get(arm, {})
        passes = number(row.get("passes") if row.get("tokens") else None, 1)
        table.add_row(arm, *map(ratio, savings), break_even(pays.get(arm)), passes)
    return table


def break_even(row: dict[str, Any] | None) -> str:
    """'1.30B tokens' of the arm, '≤' where that is a bound; 'never' where it saves nothing, 'at once' where it cost
    nothing.
    """
    if row is None or row["bound"] not in SIGNS:
        return "–"
    if not row["tokens"]:
        return "never" if row["tokens"] is None else "at once"
    return f"{SIGNS[row['bound']]}{short(row['tokens'])} tokens"


def _refining(report: dict[str, Any]) -> Iterator[RenderableType]:
    score, programs = report["refiner"], report["programs"]
    lines = []
    if score:
        doc, line = score["doc"]["f1"], score["line"]["f1"]
        lines.append(f"refiner: doc F1 {number(doc)}, line F1 {number(line)}")
    for stage, statuses in programs.get("programs", {}).items():
        if statuses:
            lines.append(f"{stage} programs: {counts(statuses)}")
    if report["refining_flops"] is not None:
        charge = report["charge"]
        inside = ", ".join(row for row, on in charge["rows"].items() if on)
        lines.append(f"refining cost: {flops(report['refining_flops'])} FLOPs")
        lines.append(f"charged: {inside} (report.prorate={charge['prorate']})")
        if charge["unmeasured"]:
            lines.append(f"charged, but nobody measured it: {', '.join(charge['unmeasured'])}")
    if lines:
        yield Text("\n" + "\n".join(lines))
