"""Matched performance on curves whose answer is known."""

import json
import math

import numpy as np
import pytest

from prox_hpc.report.headline import COVERED
from prox_hpc.report.matched import FIRST, NOT_REACHED, REACHED, Account, Charge, Curve, compare, isotonic, reach

FLOPS = np.array([1e9, 2e9, 4e9, 8e9])


def loglinear(offset: float, slope: float = 0.1) -> np.ndarray:
    return offset + slope * np.log2(FLOPS / 1e9)


def upper(saving: dict) -> float:
    return math.inf if saving["high"] is None else saving["high"]


def test_a_curve_shifted_by_one_doubling_saves_exactly_two() -> None:
    charged = {"flops": Account(charges=(Charge(), Charge(fixed=1e9)))}
    found = compare(Curve.of_scores(FLOPS, [loglinear(0.2)]), Curve.of_scores(FLOPS, [loglinear(0.3)]), True, charged)
    to_raw = found["to_baseline"]
    assert to_raw["target"] == pytest.approx(0.5)
    assert to_raw["arm_flops"] == pytest.approx(4e9)
    assert to_raw["saving"]["ratio"] == pytest.approx(2)
    assert to_raw["saving_with_cost"]["ratio"] == pytest.approx(8 / 5)
    assert found["to_arm"]["baseline_outcome"] == NOT_REACHED
    assert found["to_arm"]["baseline_flops"] is None
    assert found["to_arm"]["saving"]["ratio"] is None
    assert found["interval"] is False
    assert to_raw["saving"]["low"] is None


def test_interpolation_is_linear_in_log_flops_and_bits_per_byte_go_down() -> None:
    raw = np.array([3.0, 2.5, 2.2, 2.0])
    refined = np.array([2.8, 2.1, 1.9, 1.8])
    found = compare(Curve.of_scores(FLOPS, [raw]), Curve.of_scores(FLOPS, [refined]), False)["to_baseline"]
    assert found["target"] == 2.0
    assert found["arm_flops"] == pytest.approx(2e9 * math.sqrt(2))  # half way from 2.1 to 1.9
    assert found["arm_outcome"] == REACHED


def test_an_arm_compared_with_itself_saves_nothing_even_when_it_is_noisy() -> None:
    curve = Curve.of_scores(FLOPS, [[0.2, 0.4, 0.3, 0.35], [0.25, 0.3, 0.4, 0.3]])
    found = compare(curve, curve, True)
    for reading in ("to_baseline", "to_arm"):
        assert found[reading]["saving"]["ratio"] == 1
        assert found[reading]["saving"]["low"] <= 1 <= upper(found[reading]["saving"])


def test_a_worse_arm_never_gets_there_and_says_so() -> None:
    found = compare(Curve.of_scores(FLOPS, [loglinear(0.3)] * 2), Curve.of_scores(FLOPS, [loglinear(0.1)] * 2), True)
    assert found["to_baseline"]["arm_outcome"] == NOT_REACHED
    assert found["to_baseline"]["saving"] == {"ratio": 0.0, "bound": "", "low": 0.0, "high": 0.0, "reached": 0.0}
    assert found["to_arm"]["saving"]["ratio"] == pytest.approx(1 / 4)
    json.dumps(found, allow_nan=False)


def test_a_score_had_from_the_first_checkpoint_is_marked() -> None:
    assert reach(FLOPS, np.array([0.5, 0.6, 0.6, 0.7]), 0.4) == (1e9, FIRST)
    assert reach(FLOPS, np.array([0.5, 0.6, 0.6, 0.7]), 0.71) == (math.inf, NOT_REACHED)
    assert reach(FLOPS, np.array([0.5, 0.6, 0.6, 0.7]), 0.6) == (pytest.approx(2e9), REACHED)


def test_isotonic_pools_violators() -> None:
    assert isotonic(np.array([1.0, 3.0, 2.0, 4.0])).tolist() == [1, 2.5, 2.5, 4]
    assert isotonic(np.array([3.0, 2.0, 1.0])).tolist() == [2, 2, 2]


def items(scores: np.ndarray, count: int, seed: int) -> Curve:
    random = np.random.default_rng(seed)
    return Curve(FLOPS, (random.random((3, len(FLOPS), count)) < scores[None, :, None]).astype(float), np.ones(count))


def test_the_interval_covers_the_truth_and_narrows_with_more_items() -> None:
    widths = []
    for count in (150, 15_000):
        found = compare(items(loglinear(0.3), count, 1), items(loglinear(0.4), count, 2), True, replicates=300)
        saving = found["to_baseline"]["saving"]
        assert saving["low"] <= 2 <= upper(saving)
        widths.append(upper(saving) - saving["low"])
    assert widths[1] < widths[0] / 2
    assert widths[1] < 0.5


def test_the_interval_has_its_nominal_coverage() -> None:
    """Of 60 studies whose true saving is 2, the 95 % interval misses few (binomial: 10 or more has p < 0.001)."""
    missed = 0
    for study in range(60):
        raw, refined = items(loglinear(0.3), 400, 2 * study), items(loglinear(0.4), 400, 2 * study + 1)
        saving = compare(raw, refined, True, replicates=200)["to_baseline"]["saving"]
        missed += not saving["low"] <= 2 <= upper(saving)
    assert missed < 10


@pytest.mark.parametrize("seeds", [(1, 2), (2, 2), (3, 3), (4, 4)])
def test_the_interval_covers_as_little_as_the_headline_says_when_seeds_differ(seeds: tuple[int, int]) -> None:
    """120 studies whose true saving is 2, the seeds a fifth of a doubling apart in level (standard deviation)."""
    flops, covered = 1e9 * 2.0 ** np.arange(6), 0
    for study in range(120):
        random = np.random.default_rng(study)
        levels = [level + random.normal(0, 0.02, (n, 1)) for level, n in zip((0.2, 0.3), seeds, strict=True)]
        raw, arm = (Curve.of_scores(flops, level + 0.1 * np.log2(flops / 1e9)) for level in levels)
        saving = compare(raw, arm, True, replicates=150)["to_baseline"]["saving"]
        covered += saving["low"] <= 2 <= upper(saving)
    told = COVERED[min(seeds)] / 100
    assert told - 0.1 < covered / 120 < told + 0.1


def test_items_are_weighted_by_their_bytes() -> None:
    bits = np.array([[[8.0, 100.0]]])
    curve = Curve(np.array([1e9]), bits, np.array([8.0, 50.0]))
    assert curve.scores()[0, 0] == pytest.approx(108 / 58)


def test_arms_evaluated_on_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="same items"):
        compare(items(loglinear(0.3), 10, 1), items(loglinear(0.3), 11, 1), True)
    with pytest.raises(ValueError, match="increase"):
        Curve.of_scores([2e9, 1e9], [[0.1, 0.2]])


def test_the_interval_widens_as_much_as_seeds_differ() -> None:
    """Two seeds 2 d apart: the resampled mean must spread with the standard error d (not d / sqrt(2))."""
    curve = Curve.of_scores([1e9], [[0.4], [0.6]])
    random = np.random.default_rng(0)
    draws = [curve.resample(random.integers(2, size=2), np.ones(1))[0] for _ in range(4000)]
    assert np.std(draws) == pytest.approx(0.1, rel=0.05)
    assert np.mean(draws) == pytest.approx(0.5, abs=0.01)


def test_what_grows_with_the_corpus_is_charged_pro_rata() -> None:
    """Half of the budget reaches the score: half of the passes are due, or all that was seen of a pool of a quarter."""
    raw, refined = Curve.of_scores(FLOPS, [loglinear(0.2)]), Curve.of_scores(FLOPS, [loglinear(0.3)])
    for over, due in ((None, 1e9), (8e9, 0.5e9), (2e9, 1e9)):
        arm = Charge(fixed=1e8, spread=1e9, over=over)
        found = compare(raw, refined, True, {"flops": Account(charges=(Charge(), arm))})["to_baseline"]
        assert found["saving_with_cost"]["ratio"] == pytest.approx(8e9 / (4e9 + 1e8 + due))


def test_in_hours_each_arm_has_its_own_speed_and_the_baseline_its_own_charge() -> None:
    raw, refined = Curve.of_scores(FLOPS, [loglinear(0.2)]), Curve.of_scores(FLOPS, [loglinear(0.3)])
    hours = Account((1e-9, 2e-9), (Charge(fixed=2.0), Charge(fixed=12.0)))
    found = compare(raw, refined, True, {"flops": Account(), "hours": hours})
    told = found["to_baseline"]["units"]["hours"]
    assert (told["baseline"], told["arm"]) == (pytest.approx(8), pytest.approx(8))
    assert told["saving"]["ratio"] == pytest.approx(1)
    assert told["saving_with_cost"]["ratio"] == pytest.approx(10 / 20)
    assert found["cost"] == {"flops": 0, "hours": 10}
    unknown = compare(raw, refined, True, {"flops": Account(charges=None)})
    assert unknown["to_baseline"]["saving_with_cost"] is None
    assert unknown["cost"] == {"flops": None}


def test_the_average_of_tasks_counts_each_task_once_however_many_items_it_has() -> None:
    few, many = items(loglinear(0.2), 50, 1), items(loglinear(0.6, 0.01), 5000, 2)
    mean = Curve.average([few, many])
    assert mean.scores() == pytest.approx((few.scores() + many.scores()) / 2)
    nested = Curve.average([mean, few])
    assert nested.scores() == pytest.approx(0.75 * few.scores() + 0.25 * many.scores())
    with pytest.raises(ValueError, match="same checkpoints"):
        Curve.average([few, Curve.of_scores(FLOPS, [loglinear(0.2)])])


def test_a_mean_of_tasks_resamples_each_task_by_itself() -> None:
    """A task of few items keeps its weight in every replicate, and one without item results stays as it is."""
    few, bare = items(loglinear(0.2), 20, 1), Curve.of_scores(FLOPS, [loglinear(0.5)] * 3)
    uneven = Curve(FLOPS, few.numerator, np.linspace(1, 9, 20))
    mean = Curve.average([Curve.average([few, bare]), uneven])
    assert (mean.tasks, mean.items) == ((20, 1, 20), 40)
    random = np.random.default_rng(0)
    for _ in range(20):
        drawn = mean.draw(random)
        assert drawn[20] == 1
        shares = [mean.denominator[part] @ drawn[part] for part in (slice(20), slice(20, 21), slice(21, None))]
        assert shares == pytest.approx([0.5, 0.5, 1])
    found = compare(mean, mean, True, replicates=10)
    assert (found["items_count"], found["interval"]) == (40, True)
    with pytest.raises(ValueError, match="same items"):
        compare(Curve(FLOPS, few.numerator, few.denominator, (10, 10)), few, True)
    alone = Curve.of_scores(FLOPS, [loglinear(0.5)])
    two = Curve.average([alone, alone])
    found = compare(two, two, True, replicates=10)
    assert (found["items_count"], found["interval"]) == (None, False), "nothing to resample"


def test_a_score_had_from_the_first_checkpoint_bounds_the_saving() -> None:
    raw, ahead = [loglinear(0.2)] * 2, [loglinear(0.6)] * 2
    costs = {"flops": Account(charges=(Charge(), Charge(fixed=2e9)))}
    found = compare(Curve.of_scores(FLOPS, raw), Curve.of_scores(FLOPS, ahead), True, costs, replicates=20)
    told = found["to_baseline"]
    assert (told["arm_outcome"], told["saving"]["bound"]) == (FIRST, "at least")
    assert (told["saving"]["ratio"], told["saving"]["low"]) == (pytest.approx(8), pytest.approx(8))
    assert told["saving"]["high"] is None
    charged = told["saving_with_cost"]
    assert (charged["bound"], charged["ratio"]) == ("at least", pytest.approx(8 / 3))
    assert (charged["low"], charged["high"]) == (pytest.approx(8 / 3), pytest.approx(4)), "training for nothing"
    back = compare(Curve.of_scores(FLOPS, ahead), Curve.of_scores(FLOPS, raw), True, replicates=20)["to_arm"]
    assert (back["saving"]["bound"], back["saving"]["low"]) == ("at most", 0)
    assert back["saving"]["high"] == pytest.approx(1 / 8)
    flat = Curve.of_scores(FLOPS, [np.full(4, 0.5)] * 2)
    assert compare(flat, flat, True, replicates=20)["to_baseline"]["saving"]["bound"] == "unknown"


def test_checkpoints_without_a_finite_score_are_left_out() -> None:
    curve = Curve.of_scores(FLOPS, [[9.0, math.inf, 8.0, 7.0], [9.0, 8.0, 8.0, math.nan]]).finite()
    assert curve is not None
    assert curve.flops.tolist() == [1e9, 4e9]
    assert Curve.of_scores(FLOPS, [[math.inf] * 4]).finite() is None
