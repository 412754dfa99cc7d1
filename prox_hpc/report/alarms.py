"""Known signs that a study went wrong, looked for in its own figures. Pure; thresholds are settings (`report.alarms`).

An alarm does not judge: it names the figure, what is usual, and the command that shows the documents behind it
(`prox_hpc.report.excerpts` adds some of them).
"""

import shlex
from typing import Any

from prox_hpc.config import Alarms

FAILED = ("malformed", "truncated")
"""Statuses of programs that were lost in whole or in part."""
QUARANTINED = "quarantined"
"""Reason that the refine step gives for a document that the servers could not answer."""


def alarms(report: dict[str, Any], limits: Alarms) -> list[dict[str, Any]]:
    """[{name, text, setting, value, limit, commands}] from the other content of report.json; [] when all is usual.

    Those about the documents of one arm have `arm`, too.
    """
    kinds = (_refiner, _programs, _quarantined, _scores, _epochs)
    return [alarm for kind in kinds for alarm in kind(report, limits)]


def _alarm(name: str, text: str, value: float, limit: float, commands: list[str]) -> dict[str, Any]:
    setting = f"report.alarms.{name}"
    return {"name": name, "text": text, "setting": setting, "value": value, "limit": limit, "commands": commands}


def _inspect(report: dict[str, Any], *options: str) -> str:
    return shlex.join(["python", "-m", "prox_hpc.inspect", report["run"], *options])


def _refiner(report: dict[str, Any], limits: Alarms) -> list[dict[str, Any]]:
    found = []
    for name, part, what, options in (
        ("doc_f1", "doc", "keeps and drops documents", ("--outcome", "dropped")),
        ("line_f1", "line", "removes lines", ("--op", "remove_lines")),
    ):
        f1, limit = report["refiner"].get(part, {}).get("f1"), getattr(limits, name)
        if f1 is not None and f1 < limit:
            text = f"The refiner {what} with an F1 of {f1:.3f} against gold, below {limit:g}."
            found.append(_alarm(name, text, f1, limit, [_inspect(report, *options)]))
    return found


def _programs(report: dict[str, Any], limits: Alarms) -> list[dict[str, Any]]:
    found, limit = [], limits.failed_programs
    for stage, statuses in report["programs"].get("programs", {}).items():
        written = sum(n for status, n in statuses.items() if status in ("ok", "partial", *FAILED))
        failed = {status: statuses[status] for status in FAILED if statuses.get(status)}
        share = sum(failed.values()) / written if written else 0.0
        if share > limit:
            told = " and ".join(f"{count:,} {status}" for status, count in failed.items())
            text = (
                f"{100 * share:.1f} % of the {stage} programs failed: {told} of {written:,} (limit {100 * limit:g} %)."
            )
            commands = [_inspect(report, "--status", status) for status in failed] if stage == "chunk" else []
            found.append(_alarm("failed_programs", text, share, limit, commands))
    return found


def _quarantined(report: dict[str, Any], limits: Alarms) -> list[dict[str, Any]]:
    """Documents that no program was written for, because the servers could not answer."""
    number, limit = report["programs"].get("reasons", {}).get(QUARANTINED, 0), limits.quarantined
    share = number / max(1, report["programs"].get("documents", {}).get("in", 0))
    if share <= limit:
        return []
    text = f"{number:,} documents ({100 * share:.2g} %) were quarantined: the servers could not answer for them."
    return [_alarm("quarantined", text, share, limit, [_inspect(report, "--reason", QUARANTINED)])]


def _scores(report: dict[str, Any], limits: Alarms) -> list[dict[str, Any]]:
    """An arm that keeps less than the baseline, or than another refined arm, and yet scores lower at equal tokens."""
    if not report["metrics"]:
        return []
    metric = report["metrics"][0]
    kept = {row["arm"]: row["token_retention"] for row in report["arms"]}
    longest = max((line["flops"][-1] for line in metric["curves"].values()), default=0.0)
    # arms still being scored are not judged: their last checkpoint is an earlier one
    finals = {arm: line["mean"][-1] for arm, line in metric["curves"].items() if line["flops"][-1] > 0.99 * longest}
    refined = [row["arm"] for row in report["arms"] if row["kind"] == "refined" and row["arm"] in finals]
    found = []
    for arm in refined:
        for other in (report["baseline"], *refined):
            if other not in finals or kept[arm] is None or kept[other] is None or not kept[arm] < kept[other]:
                continue
            worse = finals[other] - finals[arm] if metric["higher_is_better"] else finals[arm] - finals[other]
            drop = worse / abs(finals[other]) if finals[other] else 0.0
            if drop > limits.score_drop:
                text = (
                    f"{arm} keeps {100 * kept[arm]:.1f} % of the tokens and {other} {100 * kept[other]:.1f} %, but its "
                    f"{metric['task']} is {100 * drop:.1f} % worse: it may remove what the trainee needs."
                )
                show = _inspect(report, "--outcome", "dropped")
                found.append(_alarm("score_drop", text, drop, limits.score_drop, [show]) | {"arm": arm})
    return found


def _epochs(report: dict[str, Any], limits: Alarms) -> list[dict[str, Any]]:
    return [
        _alarm(
            "epochs",
            f"{row['arm']} was seen {row['epochs']:.1f} times: beyond {limits.epochs:g}, repeated tokens teach less.",
            row["epochs"],
            limits.epochs,
            [],
        )
        for row in report["arms"]
        if row["epochs"] is not None and row["epochs"] > limits.epochs
    ]
