"""The break-even pays exactly: what is spared by then is what was spent."""

import math

import pytest

from prox_hpc.report.breakeven import break_even


@pytest.mark.parametrize(
    ("cost", "per_token", "saving"), [(5.11e19, 6 * 1.676e9, 1.7), (1e13, 6e6, 1.05), (7.0, 2.0, 40.0)]
)
def test_at_the_break_even_both_ways_cost_the_same(cost: float, per_token: float, saving: float) -> None:
    tokens = break_even(cost, per_token, saving).tokens
    assert per_token * tokens * saving == pytest.approx(per_token * tokens + cost)


def test_the_papers_small_refiner_pays_within_one_run_of_the_large_trainee() -> None:
    pays = break_even(5.11e19, 6 * 1_676_249_088, 2.0, pool=14.5e9, to_score=10.5e9)
    assert pays.tokens == pytest.approx(5.08e9, rel=1e-2)
    assert pays.passes == pytest.approx(0.35, abs=0.01)
    assert pays.runs == pytest.approx(0.48, abs=0.01)


def test_it_never_pays_without_a_saving_and_at_once_without_a_cost() -> None:
    assert break_even(1e9, 6.0, 1.0).tokens == math.inf
    assert break_even(1e9, 6.0, 0.5).tokens == math.inf
    assert break_even(0.0, 6.0, 0.5).tokens == math.inf, "it costs nothing and saves nothing"
    assert break_even(0.0, 6.0, 1.0).tokens == math.inf
    assert break_even(0.0, 6.0, 1.5).tokens == 0
    assert break_even(-5.0, 6.0, 2.0).tokens == 0
    assert break_even(1e9, 6.0, math.inf).tokens == 0
    assert break_even(1e9, 6.0, 2.0).passes is None
    with pytest.raises(ValueError, match="must cost"):
        break_even(1.0, 0.0, 2.0)
