"""What the study found, in sentences, and how figures are written. Shared by the page and the terminal; pure."""

import math
from typing import Any

TOLD = 2
"""Metrics that the headline speaks of at most (of one, where it is the mean of the others); the page has all."""

UNEVEN = 1.25
"""By how much training runs may differ in hours for the same FLOPs before the report says so."""

COVERED = {1: 50, 2: 78, 3: 87, 4: 87}
"""Seeds of the arm that has fewest -> percent of simulated studies whose 95 % interval holds the truth.

Of 600 studies whose seeds differ in level alone, see the test of the coverage. With one: 43 beside two seeds, 58 beside
five. Five of both have 90, ten 92.
"""


def flops(value: float | None) -> str:
    """1.83e+13 -> '1.83e13'."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def short(value: float | None) -> str:
    """Tokens and parameters as people write them: 434,210 -> '434K', 1.06e6 -> '1.06M', 26.2e9 -> '26.2B'."""
    if value is None or value >= 999.5e12:
        return flops(value)
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= 0.9995 * size:  # 999,600 is 1.00M
            return f"{value / size:#.3g}".rstrip(".") + unit
    return f"{value:.3g}"


def count(value: float | None) -> str:
    """Thousands separated; '–' for None."""
    return "–" if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def times(value: float) -> str:
    """A ratio: 1.84 -> '1.84×', 0.0123 -> '0.01×', 12.34 -> '12.3×', 123.4 -> '123×'."""
    if value >= 9.995:
        return f"{value:,.0f}×" if value >= 99.95 else f"{value:.1f}×"
    return f"{value:.2f}×" if value >= 0.095 else f"{value:.1g}×"


def hours(value: float | None) -> str:
    """123.4 -> '123', 1.2345 -> '1.23', 0.000086 -> '8.60e-5'."""
    if value is None or 0 < value < 1e-3:
        return flops(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ends(saving: dict[str, Any]) -> str:
    """'1.20× to 2.40×'; an end at which an arm never gets there says so; '' without an interval."""
    if saving["low"] is None and saving["high"] is None:
        return ""
    none = "not reached" if saving["reached"] < 1 else "0×"
    low, high = (
        "unbounded" if end is None else none if end == 0 else times(end) for end in (saving["low"], saving["high"])
    )
    return f"{low} to {high}" if low != high else low


SIGNS = {"": "", "at least": "≥ ", "at most": "≤ "}
"""How a figure that is a bound is written; what is not among them is not known at all."""


def ratio(saving: dict[str, Any] | None) -> str:
    """'1.84×', '≥ 1.84×' where only a bound is known; '–' without a figure."""
    if saving is None or not saving["ratio"] or saving["bound"] not in SIGNS:
        return "–"
    return SIGNS[saving["bound"]] + times(saving["ratio"])


def early(outcome: str) -> bool:
    """Whether a score was had from the first checkpoint on, so that its FLOPs are those at most."""
    return outcome.startswith("at or before")


def headline(report: dict[str, Any]) -> dict[str, Any]:
    """{verdict, sentences}: the answer to "how many FLOPs does it save", the first sentence being the answer itself.

    The verdict is of the study's chosen metric. saving: the interval of the saving lies above 1, also with the cost of
    refining. offset: above 1 only without that cost. negative: below 1. none: the arm never reaches the score.
    unclear: the interval holds 1, or there is none. unknown: there is nothing to compare yet, or the interval lies
    above 1 and that cost is not known or not charged beside pre-training.
    """
    base, arm, metrics = report["baseline"], report["arm"], report["metrics"]
    if base is None or arm is None:
        lack = "raw" if base is None else "refined"
        return {"verdict": "unknown", "sentences": [f"This study has no {lack} arm, so no saving can be measured."]}
    compared = [metric for metric in metrics if arm in metric["matched"]]
    if not compared:
        lack = f"No scores of both {base} and {arm} are there yet, so no saving can be told."
        return {"verdict": "unknown", "sentences": [lack]}
    told = compared[:1] if compared[0]["task"] in report["means"] else compared[:TOLD]
    sentences = [sentence for metric in told for sentence in _sentences(report, metric)]
    sentences += [*_in_hours(report, compared[0]), *_pays_from(report, compared[0])]
    sentences += [_at_equal_tokens(base, arm, told), *_better(report, told[0])]
    sentences += [*_coverage(compared[0]["matched"][arm]), *_left_out(report["not_finite"])]
    verdict = _verdict(compared[0]["matched"][arm]["to_baseline"])
    if compared[0]["task"] != report["chosen"]:
        lack = f"Of {report['chosen']} (evaluation.metric) there are no scores to compare; this is of other tasks."
        return {"verdict": "unknown", "sentences": [lack, *sentences]}
    return {"verdict": verdict, "sentences": sentences}


def _coverage(matched: dict[str, Any]) -> list[str]:
    """How much the interval leaves out where seeds are few."""
    fewest, most = sorted(matched["seeds"])
    if not matched["interval"] or fewest > max(COVERED):
        return []
    if most == 1:
        return ["With one seed an arm, the intervals are those of the evaluation items; runs differ beside that."]
    several = f"With {fewest} seeds an arm the intervals are too narrow"
    single = "One of the two arms has a single seed, so the intervals leave out how much its runs differ"
    return [
        f"{single if fewest == 1 else several}: where runs differ more than items do, one called "
        f"{100 * matched['level']:.0f} % held the true saving in about {COVERED[fewest]} % of simulated studies."
    ]


def _left_out(scores: list[dict[str, Any]]) -> list[str]:
    """The scores that were no finite numbers."""
    if not scores:
        return []
    first = "{arm} seed {seed}, {task} at step {step}".format(**scores[0])
    more = f", and {len(scores) - 1:,} more" if scores[1:] else ""
    return [f"Left out, since they are no finite numbers: {first}{more}."]


def _at_equal_tokens(base: str, arm: str, metrics: list[dict[str, Any]]) -> str:
    """The last checkpoints' scores side by side, with the range over seeds; the ceiling too where there is one."""
    names = [name for name in (base, arm, "gold") if name in metrics[0]["curves"]]
    several = any(len(metrics[0]["curves"][name]["seeds"]) > 1 for name in names)

    def score(metric: dict[str, Any], name: str) -> str:
        mean, low, high = (metric["curves"][name][key][-1] for key in ("mean", "low", "high"))
        return f"{name} {number(mean)}" + (f" ({number(low)} to {number(high)})" if several else "")

    told = [
        f"{metric['task']} " + ", ".join(score(metric, name) for name in names if name in metric["curves"])
        for metric in metrics
    ]
    return f"At equal training tokens{', mean and range over seeds' if several else ''}: {'; '.join(told)}."


def _better(report: dict[str, Any], metric: dict[str, Any]) -> list[str]:
    """The arms that scored better than the refined one at equal tokens, the best first; gold is no contender."""
    own, sign = metric["curves"][report["arm"]], 1 if metric["higher_is_better"] else -1
    contenders = [row["arm"] for row in report["arms"] if row["kind"] != "gold" and row["arm"] in metric["curves"]]
    equal = [name for name in contenders if metric["curves"][name]["flops"][-1] > 0.99 * own["flops"][-1]]
    finals = {name: metric["curves"][name]["mean"][-1] for name in equal}
    ahead = [name for name in finals if sign * (finals[name] - finals[report["arm"]]) > 0]
    ahead.sort(key=lambda name: -sign * finals[name])
    if not ahead:
        return []
    return [f"Better than {report['arm']} there: {', '.join(f'{name} {number(finals[name])}' for name in ahead)}."]


def _verdict(reading: dict[str, Any]) -> str:
    saving, charged = reading["saving"], reading["saving_with_cost"]
    if reading["arm_flops"] is None:
        return "none"
    if saving["low"] is None or _holds_one(saving):
        return "unclear"
    if saving["low"] <= 1:
        return "negative"
    if charged is None:
        return "unknown"
    return "saving" if charged["low"] > 1 else "offset"


def _holds_one(saving: dict[str, Any]) -> bool:
    return saving["low"] is not None and saving["low"] <= 1 <= (saving["high"] or float("inf"))


def _sentences(report: dict[str, Any], metric: dict[str, Any]) -> list[str]:
    """One metric: FLOPs to the baseline's final score, without and with the refining, both in the first sentence."""
    base, arm = report["baseline"], report["arm"]
    matched = metric["matched"][arm]
    reading = matched["to_baseline"]
    goal = f"{base}'s final {metric['task']} score ({metric['label']} {_target(base, metric, reading['target'])})"
    if reading["arm_flops"] is None:
        return [f"{arm} does not reach {goal} within its training budget: no saving was measured."]
    if reading["saving"]["bound"] == "unknown":
        return [f"{base} and {arm} both had {goal} from their first checkpoint on: no saving was measured."]
    charged = reading["saving_with_cost"]
    included = ""
    if charged is not None and matched["cost"]["flops"]:
        included = f"; {_included(report, 'unmeasured')}{_compared(charged, matched, 'FLOPs')}"
    unsure = "This study does not show a difference (the interval holds 1): " if _holds_one(reading["saving"]) else ""
    told = [f"{unsure}{arm} reaches {goal} with {_compared(reading['saving'], matched)}{included}."]
    if early(reading["baseline_outcome"]):
        told.append(f"{base} had that score from its first checkpoint on, so this comparison says little.")
    if charged is None:
        told.append(_uncharged(report))
    elif pays := _pays(reading, matched["cost"]["flops"]):
        told.append(pays)
    return told


def _included(report: dict[str, Any], unmeasured: str) -> str:
    """'refining included, ' and by what rule, and what is missing from it (a key of `charge`)."""
    charge = report["charge"]
    rule = {"run": "pro rata of the run", "pool": "by the share of the pool used"}.get(charge["prorate"])
    told = ["refining included"] + ([f"{rule} (report.prorate={charge['prorate']})"] if rule else [])
    if charge[unmeasured]:
        told += [f"without {' and '.join(charge[unmeasured])}", "which nobody measured"]
    return "".join(f"{part}, " for part in told)


def _uncharged(report: dict[str, Any]) -> str:
    """Why there is no saving with costs."""
    if not report["charge"]["rows"]["pretraining"]:
        return "Pre-training is switched out (report.charge.pretraining), so no saving with what refining cost is told."
    rows = (row for row in report["ledger"] if row["charged"] and row["flops"] is None and not row["unmeasured"])
    why = next((f" ({row['stage']}: {row['note']})" for row in rows), "")
    return f"What the refining cost is not known{why}."


def _target(base: str, metric: dict[str, Any], target: float) -> str:
    """The score to reach; it lies on the monotone curve, which differs from what was measured where scores fell."""
    told, measured = number(target), number(metric["curves"][base]["mean"][-1])
    return told if told == measured else f"{told} on the fitted curve, {measured} measured"


def _in_hours(report: dict[str, Any], metric: dict[str, Any]) -> list[str]:
    """The same in GPU-hours (on CPUs in CPU-hours), where they are known."""
    matched, unit = metric["matched"][report["arm"]], report["hours"]["unit"]
    told = matched["to_baseline"]["units"].get("hours")
    if told is None or ratio(told["saving"]) == "–":
        return []
    charged = told["saving_with_cost"]
    both = f"; {_included(report, 'unmeasured_hours')}{_compared(charged, matched, unit)}" if charged else ""
    spread, caution = report["hours"]["spread"], ""
    if spread > UNEVEN:
        caution = (
            f" Some runs took {times(spread)} as long as others for the same FLOPs: this is about the machines, too."
        )
    if report["charge"]["other_kind"]:
        other = "CPUs" if unit == "GPU-hours" else "GPUs"
        caution += f" {', '.join(report['charge']['other_kind'])} ran on {other}, whose hours are of another kind."
    return [f"In hours: {_compared(told['saving'], matched, f'training {unit}')}{both}.{caution}"]


def _pays_from(report: dict[str, Any], metric: dict[str, Any]) -> list[str]:
    """The break-even in tokens; nothing is told of a saving that the study does not show."""
    reading = metric["matched"][report["arm"]]["to_baseline"]
    for pays in report["break_even"]:
        named = (pays["arm"], pays["task"], pays["unit"]) == (report["arm"], metric["task"], "flops")
        if named and pays["tokens"] and not _holds_one(reading["saving"]):
            most = f"{pays['bound']} " if pays["bound"] else ""
            passes = f" ({number(pays['passes'], 1)} passes over it)" if pays["passes"] else ""
            return [
                f"At this saving the refining is paid back once {most}{short(pays['tokens'])} tokens of the refined "
                f"corpus{passes} have been trained on."
            ]
    return []


def _pays(reading: dict[str, Any], cost: float) -> str:
    """When the refining eats up what one run saves: how many such runs on the refined corpus it takes to pay."""
    saved = reading["baseline_flops"] - reading["arm_flops"]
    if reading["saving_with_cost"]["ratio"] >= 1 or saved <= 0 or _holds_one(reading["saving"]):
        return ""
    most = "at most " if early(reading["arm_outcome"]) else ""
    return f"It would pay from {most}{math.ceil(cost / saved):,} such training runs on the same refined corpus."


def _compared(saving: dict[str, Any], matched: dict[str, Any], what: str = "training FLOPs") -> str:
    """'1.84× fewer training FLOPs (95 % interval ...)'; below 1 how many times more, with the saving's interval."""
    value, bound = saving["ratio"], saving["bound"]
    span = "one run each: no interval"
    if matched["interval"]:
        span = f"{100 * matched['level']:.0f} % interval {ends(saving)}"
    if value >= 1:
        return f"{bound + ' ' if bound else ''}{times(value)} fewer {what} ({span})"
    if bound == "at least":
        return f"at most {times(1 / value)} more {what} (saving {ratio(saving)}, {span})"
    return f"{'at least ' if bound else ''}{times(1 / value)} more {what}, not fewer (saving {ratio(saving)}, {span})"
