"""The paper's own figures come out of our formulas."""

import json
from typing import Any

import pytest

from prox_hpc.report.paper import TLM, figures, two_passes
from prox_hpc.train.shapes import count_parameters


def test_two_passes_of_the_small_refiner() -> None:
    cost = two_passes(TLM["0.3B"], 62.5e9, 19e9)
    assert cost == pytest.approx(5.11e19, rel=1e-3)
    assert cost / (6 * count_parameters(TLM["0.7B"]).minus_one_embedding) == pytest.approx(12.0e9, rel=2e-3)
    assert cost / (6 * count_parameters(TLM["1.7B"]).minus_one_embedding) == pytest.approx(5.1e9, rel=5e-3)


@pytest.mark.parametrize("figure", figures(), ids=lambda figure: figure.figure)
def test_a_published_figure_is_reproduced_within_its_tolerance(figure: Any) -> None:
    assert abs(figure.relative_difference) <= figure.tolerance, figure.how
    assert figure.tolerance < 0.1


def test_counts_are_exact_and_figure_8_is_not_copied() -> None:
    by_name = {figure.figure: figure for figure in figures()}
    assert len(by_name) == len(figures()), "a figure stands twice"
    counts = [figure for name, figure in by_name.items() if "parameters" in name]
    assert len(counts) == 10
    assert all(figure.ours == figure.published for figure in counts)
    bars = [
        figure.ours / 1e20 for name, figure in by_name.items() if name.startswith("Figure 8") and " with ProX" in name
    ]
    assert bars == pytest.approx([0.43, 0.68, 1.30], abs=0.005)


def test_the_command_prints_every_figure(command: Any) -> None:
    printed = json.loads(command("prox_hpc.report.flops", "paper").stdout)
    assert printed == [figure.to_json() for figure in figures()]
    assert {"figure", "published", "ours", "relative_difference", "how", "tolerance", "reconstructed"} == set(
        printed[0]
    )


def test_what_rests_on_an_assumption_of_ours_is_marked() -> None:
    marked = {figure.figure for figure in figures() if figure.reconstructed}
    guessed = ("Figure 8", "text, ", "pre-training the refiner's base", "refining one dump with the 0.7B refiner, A100")
    assert marked == {figure.figure for figure in figures() if figure.figure.startswith(guessed)}
    assert len(marked) == 13
    assert not any("tokens/s" in figure.figure for figure in figures()), "the paper prints no such figure"
    gains = [figure for figure in figures() if figure.figure.startswith(("Figure 6", "Table 5", "Table 6"))]
    assert len(gains) == 5 + 4 + 1
