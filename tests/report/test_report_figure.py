"""The arms' names beside the curves: each once, none on another, in the order in which the curves end."""

import re
from itertools import pairwise

import pytest

from prox_hpc.report.figure import BOTTOM, HEIGHT, TOP, plot

ARMS = [f"arm_{i}" for i in range(10)]


def test_charges_far_beyond_the_curves_are_told_in_words() -> None:
    line = {"flops": [1e12, 4e12], "hours": None, "mean": [0.1, 0.2], "low": [0.1, 0.2], "high": [0.1, 0.2]}
    metric = {"task": "t", "label": "accuracy", "higher_is_better": True}
    near, far = (
        plot(
            metric | {"curves": {"raw": line | {"charged_flops": None}, "own": line | {"charged_flops": moved}}},
            ["raw", "own"],
            "own",
        )
        for moved in ([2e12, 5e12], [1.1e14, 1.4e14])
    )
    assert "moved" in near
    assert "all charged" not in near
    assert "moved" not in far
    assert "all charged: 1.1e14 to 1.4e14 →" in far


@pytest.mark.parametrize(
    "ends", [[0.5] * 10, [0.1] * 9 + [0.9], [0.9] * 9 + [0.1], [0.1 * i for i in range(10)]], ids=str
)
def test_names_stand_apart_and_in_order(ends: list[float]) -> None:
    curves = {
        arm: {"flops": [1e12, 2e12], "charged_flops": [2e12, 3e12], "hours": None}
        | {key: [0.0, end] for key in ("mean", "low", "high")}
        for arm, end in zip(ARMS, ends, strict=True)
    }
    metric = {"task": "t", "label": "accuracy", "higher_is_better": True, "curves": curves}
    svg = plot(metric, ARMS, own="arm_3")
    names = re.findall(r'<text class="name[^"]*" x="[\d.]+" y="([\d.]+)">(\w+)</text>', svg)
    places = [float(place) for place, _ in names]
    assert sorted(name for _, name in names) == ARMS
    assert all(b - a >= 12.9 for a, b in pairwise(places))
    assert min(places) >= TOP
    assert max(places) <= HEIGHT - BOTTOM + 5
    told = [curves[name]["mean"][-1] for _, name in names]
    assert told == sorted(told, reverse=True), "the highest stands on top"
