"""What arms are charged with, and when their refining pays: the ledger's sums as the report shows them."""

import math
from dataclasses import asdict
from typing import Any

from prox_hpc.report.breakeven import break_even
from prox_hpc.report.collect import Study
from prox_hpc.report.ledger import REFINING, ROWS, Ledger, Row, arm_charge, charged_to
from prox_hpc.report.matched import AT_LEAST, AT_MOST

SIZES = (0.5, 1.0, 2.0, 5.0)
"""Refiner sizes the break-even is told for, as multiples of the study's own; the paper's are 1, 2.3 and 5.3 apart."""


def charges(study: Study, ledger: Ledger) -> dict[str, Any]:
    """What is charged: {rows: switch by row, prorate, unmeasured, unmeasured_hours, other_kind, whole_passes, arms}.

    unmeasured: stages charged that nobody measured. unmeasured_hours: those whose hours nobody did. other_kind: stages
    of refining that ran on GPUs where training did on CPUs, or the reverse. whole_passes: refined arms charged with all
    of the passes because nobody counted what they need of them. Per arm the rows it is charged with, the shares it
    needs of the passes, `parts`: FLOPs by row, and the sums for one whole training run in FLOPs, exact FLOPs and hours;
    null where one of them is not known.
    """
    settings = study.settings
    arms = []
    for name, arm in study.config["arm"].items():
        rows = {row.row for row in charged_to(ledger, name, arm)}
        named = [row for row in ROWS if row in rows]
        sums = {unit: _of_a_run(study, ledger, name, unit, named) for unit in ("flops", "exact_flops", "hours")}
        parts = {row: _of_a_run(study, ledger, name, "flops", [row]) for row in named}
        arms.append({"arm": name, "rows": named, "shares": ledger.shares[name], "parts": parts, **sums})
    return {
        "rows": asdict(settings.charge),
        "prorate": settings.prorate,
        "unmeasured": [row.stage for row in ledger.rows if row.charged and row.unmeasured],
        "unmeasured_hours": [row.stage for row in ledger.rows if row.charged and row.elsewhere],
        "other_kind": [row.stage for row in ledger.rows if row.charged and _unlike(row, ledger)],
        "whole_passes": [
            name for name, arm in study.config["arm"].items() if arm["kind"] == "refined" and not ledger.shares[name]
        ],
        "arms": arms,
    }


def _unlike(row: Row, ledger: Ledger) -> bool:
    """Whether a row of refining held GPUs and training did not, or the reverse."""
    unlike = row.gpu_hours if ledger.hours == "cpu" else not row.gpu_hours and row.cpu_hours
    return row.row in REFINING and bool(unlike)


def _of_a_run(study: Study, ledger: Ledger, arm: str, unit: str, rows: list[str]) -> float | None:
    """What one whole training run is charged with in these rows; None where it is not known."""
    row = ledger.pretraining(arm)
    run = ledger.amount(unit)(row) if row else None
    trained = run / row.runs if row and run is not None else None
    amounts: list[float | None] = []
    for name in rows:
        beside = arm_charge(study, ledger, arm, unit, only=name)
        amounts.append(trained if name == "pretraining" else beside.at(trained or 0.0) if beside else None)
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def refining_flops(study: Study, ledger: Ledger, arm: str | None) -> float | None:
    """FLOPs of making the refiner and of the passes, as charged to the refined arm; None when not known."""
    if arm is None:
        return None
    own = [row for row in charged_to(ledger, arm, study.config["arm"][arm]) if row.row in REFINING]
    known = [row.flops for row in own if not row.unmeasured]
    return None if None in known else sum(value for value in known if value is not None)


def break_evens(study: Study, ledger: Ledger, metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per metric, arm and unit (FLOPs, hours) when what the arm cost is paid back, where all of it is known.

    {arm, task, unit, cost, per_token, saving, bound, tokens, tokens_low, tokens_high, passes, runs, sizes}, see
    `prox_hpc.report.breakeven`; null tokens: never. bound: "at most", "at least" or "unknown" of the tokens where the
    saving itself is no more than a bound, else "". tokens_low and tokens_high are those of the saving's interval.
    sizes: the same with a refiner of other parameters, if its programs were as good.
    """
    found = []
    for metric in metrics:
        for arm, matched in metric["matched"].items():
            for unit in ("flops", "hours"):
                told, cost = matched["to_baseline"]["units"].get(unit), matched["cost"].get(unit)
                row = ledger.pretraining(arm)
                amount = ledger.amount(unit)(row) if row else None
                if told and told["saving"]["ratio"] is not None and cost is not None and row and row.tokens and amount:
                    pays = _pays(study, arm, told, cost, amount / row.tokens, matched["interval"])
                    sizes = _sizes(study, ledger, arm, pays) if unit == "flops" else []
                    found.append({"arm": arm, "task": metric["task"], "unit": unit, **pays, "sizes": sizes})
    return found


def _pays(
    study: Study, arm: str, told: dict[str, Any], cost: float, per_token: float, interval: bool
) -> dict[str, Any]:
    saving = told["saving"]
    pool = study.summary(f"tokens/{arm}").get("tokens")
    to_score = None if told["arm"] is None else told["arm"] / per_token
    point = break_even(cost, per_token, saving["ratio"], pool, to_score)
    # a null end of the interval is infinite, and the larger the saving the fewer tokens it takes
    most, least = (
        break_even(cost, per_token, math.inf if saving[end] is None else saving[end]).tokens for end in ("low", "high")
    )
    return {
        "cost": cost,
        "per_token": per_token,
        "saving": saving["ratio"],
        "bound": {AT_LEAST: AT_MOST, AT_MOST: AT_LEAST}.get(saving["bound"], saving["bound"]),
        "pool": pool,
        "tokens": _finite(point.tokens),
        "tokens_low": _finite(least) if interval else None,
        "tokens_high": _finite(most) if interval else None,
        "passes": _finite(point.passes),
        "runs": _finite(point.runs),
    }


def _sizes(study: Study, ledger: Ledger, arm: str, pays: dict[str, Any]) -> list[dict[str, Any]]:
    """{parameters, own, cost, tokens, passes} with refiners of other sizes: what is 2 N D or 6 N D of them, scaled."""
    rows = charged_to(ledger, arm, study.config["arm"][arm])
    scaled = [row for row in rows if row.row in REFINING and row.flops and row.parameters and row.tokens]
    if not scaled:
        return []
    whole, size = sum(row.flops or 0.0 for row in scaled), max(row.parameters or 0 for row in scaled)
    found = []
    for factor in SIZES:
        cost = pays["cost"] + (factor - 1) * whole
        value = break_even(cost, pays["per_token"], pays["saving"], pays["pool"])
        own = {"parameters": round(factor * size), "own": factor == 1, "cost": cost}
        found.append({**own, "tokens": _finite(value.tokens), "passes": _finite(value.passes)})
    return found


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
