"""What lm-eval answers, as plain numbers: metrics by task, the score of groups, per-item results. Pure."""

import math
from collections.abc import Mapping
from typing import Any

Metrics = dict[str, float]


def metrics(values: Mapping[str, Any], items: Mapping[str, list[Any]]) -> Metrics:
    """lm-eval's `{"acc,none": x, "acc_stderr,none": y}` as `{"acc": x, "acc_stderr": y}`; numbers only.

    lm-eval gives no standard error for bits per byte (a ratio of sums): it is filled in by the ratio estimator.
    """
    found = {
        key.removesuffix(",none"): float(value)
        for key, value in values.items()
        if "," in key and isinstance(value, (int, float)) and math.isfinite(value)
    }
    if "bits_per_byte" in found and len(items.get("bits", [])) > 1:
        found["bits_per_byte_stderr"] = ratio_stderr(items["bits"], items["bytes"])
    return found


def ratio_stderr(bits: list[float], sizes: list[int]) -> float:
    """Standard error of sum(bits) / sum(sizes) over items: linearised ratio estimator (Cochran 1977, eq. 6.13)."""
    ratio, count = sum(bits) / sum(sizes), len(bits)
    residual = sum((b - ratio * s) ** 2 for b, s in zip(bits, sizes, strict=True))
    return math.sqrt(count / (count - 1) * residual) / sum(sizes)


def with_groups(scores: Mapping[str, Metrics], groups: Mapping[str, list[str]]) -> dict[str, Metrics]:
    """The scores and those of the groups (inner ones first): plain means of the members, as the paper averages.

    Standard errors are those of independent members: sqrt(sum of squares) / number. KeyError when a member has no
    score.
    """
    found = dict(scores)
    for group, members in groups.items():
        parts = [_accuracies(found[name]) for name in members]
        found[group] = {}
        for metric in ("acc", "acc_norm"):
            found[group][metric] = sum(part[metric] for part in parts) / len(parts)
            errors = [part[f"{metric}_stderr"] for part in parts if f"{metric}_stderr" in part]
            if len(errors) == len(parts):
                found[group][f"{metric}_stderr"] = math.sqrt(sum(error**2 for error in errors)) / len(parts)
    return found


def _accuracies(member: Metrics) -> Metrics:
    """One without a length-normalised accuracy (lm-eval's WinoGrande) counts with its accuracy."""
    return {key.replace("acc", "acc_norm"): member[key] for key in ("acc", "acc_stderr") if key in member} | member


def item_columns(samples: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Columns of per-item results from lm-eval's logged samples, in the order of the items; {} for other metrics."""
    samples = sorted((s for s in samples if s["filter"] == "none"), key=lambda sample: sample["doc_id"])
    if not samples or not {"acc", "acc_norm", "bits_per_byte"} & samples[0].keys():
        return {}
    pairs = [sample.get("bits_per_byte", (None, None)) for sample in samples]
    return {
        "item": [sample["doc_id"] for sample in samples],
        "correct": [sample.get("acc") for sample in samples],
        "correct_norm": [sample.get("acc_norm") for sample in samples],
        "bits": [None if nats is None else -nats / math.log(2) for nats, _ in pairs],
        "bytes": [size for _, size in pairs],
    }
