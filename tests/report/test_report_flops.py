"""The paper's own figures come out of our formulas, and an arm is charged for the passes it uses."""

import json
import subprocess
import sys

import pytest

from prox_hpc.report.flops import TLM, Row, paper, refining_cost, two_passes
from prox_hpc.train.shapes import count_parameters


def test_two_passes_of_the_small_refiner() -> None:
    cost = two_passes(TLM["0.3B"], 62.5e9, 19e9)
    assert cost == pytest.approx(5.11e19, rel=1e-3)
    assert cost / (6 * count_parameters(TLM["0.7B"]).minus_one_embedding) == pytest.approx(12.0e9, rel=2e-3)
    assert cost / (6 * count_parameters(TLM["1.7B"]).minus_one_embedding) == pytest.approx(5.1e9, rel=5e-3)


def test_the_command_prints_every_published_figure_beside_ours() -> None:
    command = [sys.executable, "-m", "prox_hpc.report.flops", "paper"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert figures == paper()
    bars = {row["figure"]: row for row in figures if row["figure"].startswith("Figure 8")}
    assert len(bars) == 6
    for row in bars.values():
        assert row["published"] != row["ours"]
        assert abs(row["relative_difference"]) < 0.065
    with_prox = [row["ours"] / 1e20 for name, row in bars.items() if " with ProX" in name]
    assert with_prox == pytest.approx([0.43, 0.68, 1.30], abs=0.005)
    for row in figures:
        if row["figure"].startswith(("refining one dump", "the refining in training tokens")):
            assert abs(row["relative_difference"]) < 0.03


def test_an_arm_is_charged_for_the_passes_it_uses() -> None:
    rows = [
        Row("SFT", 100.0, refining=True),
        Row("doc pass, prefill", 10.0, refining=True),
        Row("chunk pass, prefill", 3.0, refining=True),
        Row("chunk pass, decode", 1.0, refining=True),
        Row("pre-training", 5e9, arm="raw"),
    ]
    assert refining_cost(rows, doc=True, chunk=True) == 114
    assert refining_cost(rows, doc=True, chunk=False) == 110
    assert refining_cost(rows, doc=False, chunk=True) == 104
    unknown = [*rows, Row("doc pass, decode", None, refining=True)]
    assert refining_cost(unknown, doc=True, chunk=True) is None
    assert refining_cost(unknown, doc=False, chunk=True) == 104
    assert refining_cost([], doc=True, chunk=True) is None
