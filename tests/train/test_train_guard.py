"""Losses that end a run, and those that do not; which rank a stalled run waits for."""

import math
import random

import pytest

from prox_hpc.config import Training
from prox_hpc.errors import UserError
from prox_hpc.train.guard import ENOUGH, Guard
from prox_hpc.train.watch import Pulse, suspects


def falling(count: int) -> list[float]:
    """Losses as of a healthy run: from 8 down to 3, with noise."""
    rng = random.Random(0)
    return [3 + 5 * math.exp(-step / 100) + rng.gauss(0, 0.05) for step in range(count)]


def survived(losses: list[float], before: list[float] | None = None, **settings: int) -> int:
    """Steps until the guard ends the run, or all."""
    guard = Guard(Training(**settings), before or [])
    for step, loss in enumerate(losses):
        try:
            guard.check(step + 1, loss, 1.0)
        except UserError:
            return step
    return len(losses)


def test_a_healthy_run_and_short_spikes_pass() -> None:
    losses = falling(3000)
    assert survived(losses) == 3000
    for start in range(500, 3000, 100):
        losses[start : start + 19] = [9.0] * 19
    assert survived(losses, spike_steps=20) == 3000


def test_a_spike_that_stays_ends_the_run_also_after_a_resume() -> None:
    losses = falling(2000)
    losses[1500:] = [loss + 6 for loss in losses[1500:]]
    assert survived(losses, spike_steps=20) == 1519
    assert survived(losses[1510:], losses[:1510], spike_steps=20) == 9
    assert survived(losses, spike_steps=0) == 2000


def test_a_resumed_run_may_be_told_to_end_sooner() -> None:
    losses = falling(2000)
    losses[1500:] = [loss + 6 for loss in losses[1500:]]
    assert survived(losses[1510:], losses[:1510], spike_steps=5) == 0  # 11 of 5 steps of the spike
    guard = Guard(Training(), losses[:1500])
    assert not guard.in_a_spike
    guard.check(1501, losses[1500], 1.0)
    assert guard.in_a_spike
    assert not Guard(Training(spike_steps=0), losses[:1510]).in_a_spike  # told to train through it


def test_nothing_is_judged_before_there_is_enough() -> None:
    assert survived([3.0] * (ENOUGH // 2) + [9.0] * 400, spike_steps=5) == ENOUGH // 2 + 400
    with pytest.raises(UserError, match=r"9, .* 7 standard .* \(3 over 100 steps\) for 1 steps.*spike_steps=0") as told:
        Guard(Training(spike_steps=1), [3.0] * ENOUGH).check(101, 9.0, None)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, None), (3.0, math.inf)])
def test_what_is_not_finite_ends_the_run_at_once(loss: float, norm: float | None) -> None:
    with pytest.raises(UserError, match=r"the loss at step 7 is .*lower training\.learning_rate=0\.003"):
        Guard(Training()).check(7, loss, norm)


def test_who_is_silent_who_is_behind_and_when_it_is_nobody() -> None:
    waiting = Pulse(9, "computing", 3, "n1, process 5", 1.0)
    behind = Pulse(8, "reading data", 3, "n2, process 6", 2.0)
    silent = Pulse(9, "computing", 3, "n3, process 7", 99.0)
    assert suspects({0: waiting, 1: behind}, 2, 30) == "rank 1 (n2, process 6) is behind, reading data of step 3"
    assert suspects({0: waiting, 1: behind, 2: silent}, 4, 30) == (
        "rank 3 is not there; rank 2 (n3, process 7) has shown no sign of life for 99 s, while computing of step 3"
    )
    assert "no rank is behind" in suspects({0: waiting, 1: waiting}, 2, 30)
