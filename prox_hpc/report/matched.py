"""How much compute one arm saves over another at equal score, with an interval.

An arm's curve is its score (mean over seeds) against the FLOPs of training, one point per checkpoint. It is made
monotone by isotonic regression, so that noise between checkpoints neither hides nor invents a crossing, and read
between checkpoints by linear interpolation in log FLOPs; nothing is extrapolated: a score that no checkpoint reaches
is "not reached", one that the first checkpoint already has is known only to lie at or before it.

Two savings are read, both as FLOPs of the baseline / FLOPs of the arm: to the baseline's final score, and to the arm's
final score. A final score is the end of the fitted curve, for both arms alike, so that an arm compared with itself
saves exactly 1. The interval is a percentile bootstrap (Efron and Tibshirani 1993, chapter 13) over seeds, drawn for
each arm by itself, and over evaluation items, drawn once for both since they answer the same items. In a mean of tasks
each task's items are drawn among themselves; a task without item results stays as it is. Resampling S seeds shows only
(S - 1) / S of the variance between them, so a resample's departure from the mean over all seeds is stretched by
sqrt(S / (S - 1)) (Davison and Hinkley 1997, section 2.3); with few seeds the interval is too narrow all the same
(`prox_hpc.report.headline.COVERED`), and with one their part is absent.

Of a score had at the first checkpoint only a bound is known, and so of the saving. An interval then reaches to where
that bound leaves it: the side on which the FLOPs could be none at all.

The same readings are told in other units of compute (exact FLOPs, GPU-hours): along one run these are proportional to
its training FLOPs, so a curve and every resample of it is only scaled.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

REACHED, FIRST, NOT_REACHED = "reached", "at or before the first checkpoint", "not reached within the budget"

AT_LEAST, AT_MOST, UNKNOWN = "at least", "at most", "unknown"
"""What a ratio may be instead of measured (`Reading.bound`)."""


@dataclass(frozen=True)
class Curve:
    """One arm's runs on one metric: S seeds, P checkpoints, I items.

    flops: (P,) increasing, training FLOPs of each checkpoint. numerator: (S, P, I) and denominator: (I,), the score
    being sum(numerator) / sum(denominator): correct / 1 for accuracy, bits / bytes for bits per byte. Without item
    results I = 1, numerator = the scores, denominator = 1. tasks: how many of the items, in their order, belong to each
    task that the score is the mean of; () for one task.
    """

    flops: Array
    numerator: Array
    denominator: Array
    tasks: tuple[int, ...] = ()

    @staticmethod
    def of_scores(flops: Any, scores: Any) -> "Curve":
        """From scores (S, P) alone."""
        return Curve(np.asarray(flops, float), np.asarray(scores, float)[:, :, None], np.ones(1))

    def __post_init__(self) -> None:
        seeds, points, items = self.numerator.shape
        object.__setattr__(self, "tasks", self.tasks or (items,))
        if sum(self.tasks) != items:
            raise ValueError(f"tasks of {self.tasks} items have not {items} together")
        if self.flops.shape != (points,) or self.denominator.shape != (items,) or not seeds or not points:
            raise ValueError(f"shapes {self.flops.shape}, {self.numerator.shape}, {self.denominator.shape} disagree")
        if (self.flops <= 0).any() or (np.diff(self.flops) <= 0).any():
            raise ValueError(f"FLOPs of checkpoints must be positive and increase: {self.flops.tolist()}")

    @staticmethod
    def average(curves: Sequence["Curve"]) -> "Curve":
        """The plain mean of several tasks' scores, as the paper averages; ValueError when FLOPs or seeds differ."""
        first = curves[0]
        if any(len(c.numerator) != len(first.numerator) or not np.array_equal(c.flops, first.flops) for c in curves):
            raise ValueError("the tasks were not scored at the same checkpoints of the same runs")
        # Each task's denominators sum to 1, so that the ratio of the sums is the mean of the tasks' ratios.
        weights = [1 / curve.denominator.sum() for curve in curves]
        return Curve(
            first.flops,
            np.concatenate([c.numerator * w for c, w in zip(curves, weights, strict=True)], axis=2),
            np.concatenate([c.denominator * w for c, w in zip(curves, weights, strict=True)]),
            tuple(count for curve in curves for count in curve.tasks),
        )

    @property
    def seeds(self) -> int:
        return len(self.numerator)

    def scores(self) -> Array:
        """(S, P)."""
        return self.numerator.sum(axis=2) / self.denominator.sum()

    def mean(self) -> Array:
        """(P,): mean over seeds."""
        mean: Array = self.scores().mean(axis=0)
        return mean

    def resample(self, seeds: NDArray[np.int64], items: Array) -> Array:
        """(P,): mean over the drawn seeds (indices, repeats allowed) and items (I,), see `draw`."""
        scores = self.numerator @ items / (self.denominator @ items)
        mean: Array = scores.mean(axis=0)
        return mean + _stretch(self.seeds) * (scores[seeds].mean(axis=0) - mean)

    @property
    def items(self) -> int:
        """How many items there are to resample; 0 when no task has item results."""
        return sum(count for count in self.tasks if count > 1)

    def draw(self, random: np.random.Generator) -> Array:
        """(I,): how often each item was drawn among those of its task, scaled so that tasks keep their weights."""
        drawn, start = np.ones(len(self.denominator)), 0
        for count in self.tasks:
            own = slice(start, start + count)
            times = random.multinomial(count, np.full(count, 1 / count))
            drawn[own] = times * (self.denominator[own].sum() / (self.denominator[own] @ times))
            start += count
        return drawn

    def finite(self) -> "Curve | None":
        """Without the checkpoints at which a seed's score is not a finite number; None when there is none left."""
        sound = np.isfinite(self.scores()).all(axis=0)
        if sound.all():
            return self
        return replace(self, flops=self.flops[sound], numerator=self.numerator[:, sound]) if sound.any() else None


def _stretch(seeds: int) -> float:
    return math.sqrt(seeds / (seeds - 1)) if seeds > 1 else 0.0


def isotonic(scores: Array) -> Array:
    """Least-squares non-decreasing fit by pooling adjacent violators (Ayer et al. 1955)."""
    blocks: list[tuple[float, int]] = []
    for score in scores:
        blocks.append((float(score), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (left, m), (right, n) = blocks[-2:]
            blocks[-2:] = [((left * m + right * n) / (m + n), m + n)]
    return np.concatenate([np.full(count, value) for value, count in blocks])


def fit(scores: Array, higher_is_better: bool) -> Array:
    """The monotone curve, in the direction in which it improves as higher (bits per byte come out negated)."""
    return isotonic(scores if higher_is_better else -scores)


def reach(flops: Array, fitted: Array, target: float) -> tuple[float, str]:
    """(FLOPs at which a fitted curve first has `target`, outcome); infinite FLOPs when it does not."""
    there = fitted >= target - 1e-12 * max(1.0, abs(target))
    if not there.any():
        return math.inf, NOT_REACHED
    first = int(there.argmax())
    if first == 0:
        return float(flops[0]), FIRST
    below, above = fitted[first - 1], fitted[first]
    share = min((target - below) / (above - below), 1.0)
    low, high = np.log(flops[first - 1]), np.log(flops[first])
    return float(np.exp(low + share * (high - low))), REACHED


@dataclass(frozen=True)
class Charge:
    """What an arm costs beside training, in one unit of compute.

    fixed: whatever is trained. spread: in proportion to training, all of it once `over` was trained; with over None all
    of it at once.
    """

    fixed: float = 0.0
    spread: float = 0.0
    over: float | None = None

    @property
    def total(self) -> float:
        return self.fixed + self.spread

    def at(self, trained: float) -> float:
        """The charge for a run of `trained` units."""
        return self.fixed + self.spread * (min(1.0, trained / self.over) if self.over else 1.0)


@dataclass(frozen=True)
class Account:
    """How (baseline, arm) are charged in one unit of compute.

    per_flop: units per training FLOP. charges: None when what they cost is not known.
    """

    per_flop: tuple[float, float] = (1.0, 1.0)
    charges: tuple[Charge, Charge] | None = field(default_factory=lambda: (Charge(), Charge()))


@dataclass(frozen=True)
class Reading:
    """FLOPs of both arms to one target (in the metric's own direction), inf when not reached."""

    target: float
    baseline: float
    baseline_outcome: str
    arm: float
    arm_outcome: str

    def trained(self, account: Account) -> tuple[float, float]:
        """Units (baseline, arm) trained."""
        return self.baseline * account.per_flop[0], self.arm * account.per_flop[1]

    def saving(self, account: Account, charged: bool) -> float:
        """The baseline's cost / the arm's: 0 when the arm, infinite when only the baseline never gets there."""
        return self._ratio(self.trained(account), account, charged)

    def bound(self) -> str:
        """What the saving is when a score was had from the first checkpoint on; "" when it is what it is."""
        early = self.baseline_outcome == FIRST, self.arm_outcome == FIRST
        if NOT_REACHED in (self.baseline_outcome, self.arm_outcome) or not any(early):
            return ""
        return UNKNOWN if all(early) else AT_LEAST if early[1] else AT_MOST

    def span(self, account: Account, charged: bool) -> tuple[float, float]:
        """Between what the saving lies: its value twice, unless a score was had from the first checkpoint on."""
        (baseline, arm), bound = self.trained(account), self.bound()
        least = (0.0, arm) if bound in (AT_MOST, UNKNOWN) else (baseline, arm)
        most = (baseline, 0.0) if bound in (AT_LEAST, UNKNOWN) else (baseline, arm)
        return self._ratio(least, account, charged), self._ratio(most, account, charged)

    def _ratio(self, costs: tuple[float, float], account: Account, charged: bool) -> float:
        if math.isinf(self.arm):
            return 0.0
        if charged:
            assert account.charges is not None
            costs = costs[0] + account.charges[0].at(costs[0]), costs[1] + account.charges[1].at(costs[1])
        return costs[0] / costs[1] if costs[1] else math.inf


def read(flops: tuple[Array, Array], scores: tuple[Array, Array], higher_is_better: bool) -> dict[str, Reading]:
    """Both readings of (baseline, arm) from mean scores: `to_baseline` and `to_arm` (whose final score is reached)."""
    fitted = [fit(score, higher_is_better) for score in scores]
    readings = {}
    for name, target in (("to_baseline", fitted[0][-1]), ("to_arm", fitted[1][-1])):
        (base, base_outcome), (arm, arm_outcome) = (reach(f, y, target) for f, y in zip(flops, fitted, strict=True))
        readings[name] = Reading(float(target if higher_is_better else -target), base, base_outcome, arm, arm_outcome)
    return readings


def compare(
    baseline: Curve,
    arm: Curve,
    higher_is_better: bool,
    accounts: Mapping[str, Account] | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Both savings of `arm` over `baseline`, with intervals, as JSON-ready values.

    accounts: by name of the unit; `flops`, training FLOPs, must be among them (default: that alone, nothing charged).
    For each of `to_baseline` and `to_arm`: target, FLOPs and outcome of each arm (FLOPs null when not reached), and
    `units`: per unit what each arm trained, `saving` and `saving_with_cost`, each {ratio, bound, low, high, reached}.
    bound: "at least", "at most" or "unknown" where a score was had from the first checkpoint on, so that the ratio is
    no more than that; else "". saving_with_cost is null when a charge is not known. ratio and high are null for
    infinite (the baseline never gets there), ratio and low are 0 when the arm never gets there; reached: share of
    bootstrap replicates in which both got there. low and high are null together with `interval` false when there is
    nothing to resample (one seed each and no items). items_count: of those resampled, null for none. Those of `flops`
    stand beside `units` as well.
    """
    if baseline.tasks != arm.tasks or not np.array_equal(baseline.denominator, arm.denominator):
        raise ValueError("the arms were not evaluated on the same items")
    accounts = accounts or {"flops": Account()}
    point = read((baseline.flops, arm.flops), (baseline.mean(), arm.mean()), higher_is_better)
    samples = bootstrap(baseline, arm, higher_is_better, replicates, seed)
    interval = baseline.seeds > 1 or arm.seeds > 1 or arm.items > 0
    answer: dict[str, Any] = {
        "seeds": [baseline.seeds, arm.seeds],
        "items_count": arm.items or None,
        "interval": interval,
        "level": level,
        "replicates": replicates,
        "cost": {unit: _net(account) for unit, account in accounts.items()},
    }
    for name, reading in point.items():
        units = {u: _in_unit(reading, samples[name], account, level, interval) for u, account in accounts.items()}
        answer[name] = {
            "target": reading.target,
            "baseline_flops": _finite(reading.baseline),
            "baseline_outcome": reading.baseline_outcome,
            "arm_flops": _finite(reading.arm),
            "arm_outcome": reading.arm_outcome,
            "units": units,
            **{key: units["flops"][key] for key in ("saving", "saving_with_cost")},
        }
    return answer


def _net(account: Account) -> float | None:
    """What the arm is charged in full, less what the baseline is."""
    return None if account.charges is None else account.charges[1].total - account.charges[0].total


def _in_unit(
    reading: Reading, samples: list[Reading], account: Account, level: float, interval: bool
) -> dict[str, Any]:
    baseline, arm = reading.trained(account)
    summaries = {
        charged: None
        if charged and account.charges is None
        else _summary(reading, samples, account, charged, level, interval)
        for charged in (False, True)
    }
    trained = {"baseline": _finite(baseline), "arm": _finite(arm)}
    return {**trained, "saving": summaries[False], "saving_with_cost": summaries[True]}


def bootstrap(
    baseline: Curve, arm: Curve, higher_is_better: bool, replicates: int, seed: int
) -> dict[str, list[Reading]]:
    """Readings of `replicates` resamples of seeds (per arm) and items (common to both)."""
    random = np.random.default_rng(seed)
    found: dict[str, list[Reading]] = {"to_baseline": [], "to_arm": []}
    for _ in range(replicates):
        weights = arm.draw(random)
        means = [curve.resample(random.integers(curve.seeds, size=curve.seeds), weights) for curve in (baseline, arm)]
        for name, reading in read((baseline.flops, arm.flops), (means[0], means[1]), higher_is_better).items():
            found[name].append(reading)
    return found


def _summary(
    reading: Reading, samples: list[Reading], account: Account, charged: bool, level: float, interval: bool
) -> dict[str, Any]:
    """Ratio and percentile interval; "inverted_cdf" picks a sample and so never averages with infinity."""
    least, most = np.array([sample.span(account, charged) for sample in samples]).T
    low = np.quantile(least, (1 - level) / 2, method="inverted_cdf")
    high = np.quantile(most, (1 + level) / 2, method="inverted_cdf")
    return {
        "ratio": _finite(reading.saving(account, charged)),
        "bound": reading.bound(),
        "low": _finite(float(low)) if interval else None,
        "high": _finite(float(high)) if interval else None,
        "reached": float(np.mean([math.isfinite(s.baseline) and math.isfinite(s.arm) for s in samples])),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
