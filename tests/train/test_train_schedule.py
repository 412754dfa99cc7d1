"""Learning rates, steps and checkpoints as functions of the settings; settings that cannot work are refused."""

from typing import Any

import pytest

from prox_hpc.config import Training
from prox_hpc.errors import UserError
from prox_hpc.train.schedule import accumulation, check, checkpoint_steps, learning_rate, steps

TLM = {"context": 2048, "batch_tokens": 1024 * 2048, "tokens": 12_500 * 1024 * 2048, "micro_batch": 8}


def rates(**settings: Any) -> list[float]:
    training = Training(context=8, batch_tokens=32, micro_batch=4, **settings)
    check(training)
    return [learning_rate(training, step) for step in range(steps(training))]


def test_cosine_warms_up_and_ends_at_the_minimum() -> None:
    values = rates(tokens=32 * 100, warmup_steps=10, learning_rate=1.0, min_learning_rate=0.1)
    assert values[:10] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[55] == pytest.approx(0.55)  # half way
    assert values[99] == pytest.approx(0.1, abs=5e-4)


def test_wsd_of_the_mates_comparison() -> None:
    values = rates(
        tokens=32 * 502,
        schedule="wsd",
        warmup_steps=20,
        decay_steps=200,
        learning_rate=1e-3,
        min_learning_rate=6.25e-5,
    )
    assert set(values[19:302]) == {1e-3}
    for t in (1, 50, 150, 200):  # eta * 0.5^(4 t / D)
        assert values[301 + t] == pytest.approx(1e-3 * 0.5 ** (4 * t / 200))
    assert values[-1] == pytest.approx(6.25e-5)


def test_constant() -> None:
    assert rates(tokens=320, schedule="constant", warmup_steps=2, learning_rate=2e-3)[1:] == [2e-3] * 9


def test_a_run_may_stop_before_its_schedule_s_end() -> None:
    whole = {"warmup_steps": 10, "learning_rate": 1.0, "min_learning_rate": 0.1}
    short = rates(tokens=32 * 60, schedule_tokens=32 * 100, **whole)
    assert len(short) == 60
    assert short == rates(tokens=32 * 100, **whole)[:60]
    wsd = {"schedule": "wsd", "decay_steps": 20, **whole}
    assert rates(tokens=32 * 90, schedule_tokens=32 * 100, **wsd) == rates(tokens=32 * 100, **wsd)[:90]


def test_budget_in_steps() -> None:
    training = Training(**TLM, checkpoints=5, warmup_steps=500)
    check(training, 64)
    assert (steps(training), accumulation(training, 64), accumulation(training, 1)) == (12_500, 2, 128)
    assert checkpoint_steps(training) == [2500, 5000, 7500, 10_000, 12_500]
    short = Training(tokens=8193, batch_tokens=8192, checkpoints=9, warmup_steps=0)
    assert (steps(short), checkpoint_steps(short)) == (2, [1, 2])


@pytest.mark.parametrize(
    ("settings", "ranks", "message"),
    [
        ({"batch_tokens": 8192 + 256}, 1, "multiple of micro_batch \\* context \\* ranks = 16 \\* 256 \\* 1 = 4096"),
        ({}, 3, "16 \\* 256 \\* 3"),
        ({"zero_stage": 0}, 1, "zero_stage=0 with dtype=bf16"),
        ({"zero_stage": 4}, 1, "zero_stage=4"),
        ({"dtype": "fp16"}, 1, "dtype=fp16"),
        ({"schedule": "linear"}, 1, "schedule=linear"),
        ({"warmup_steps": 60}, 1, "only 49 steps"),
        ({"min_learning_rate": 1.0}, 1, "min_learning_rate=1.0"),
        ({"checkpoints": 0}, 1, "checkpoints=0"),
        ({"schedule": "wsd", "min_learning_rate": 0.0}, 1, "must end above zero"),
        ({"schedule_tokens": 399_999}, 1, "schedule_tokens=399999: .* before training.tokens=400000"),
        ({"batch_tokens": 409_600}, 1, "batch_tokens=409600: one batch is more than training.tokens=400000"),
        ({"learning_rate": float("inf")}, 1, "learning_rate=inf"),
        ({"weight_decay": -1}, 1, "weight_decay=-1"),
        ({"beta1": 1.5}, 1, "beta1=1.5"),
        ({"beta2": float("nan")}, 1, "beta2=nan"),
        ({"grad_clip": -1}, 1, "grad_clip=-1"),
        ({"save_minutes": float("nan")}, 1, "save_minutes=nan"),
        ({"save_steps": -1}, 1, "save_steps=-1"),
        ({"stall_timeout_s": 0}, 1, "stall_timeout_s=0"),
        ({"spike_steps": -1}, 1, "spike_steps=-1"),
        ({"tracker": "mlflow"}, 1, "tracker=mlflow: unknown; one of none, tensorboard, wandb"),
    ],
)
def test_refused_settings(settings: dict[str, Any], ranks: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(Training(**settings), ranks)


def test_full_precision_may_do_without_zero() -> None:
    check(Training(zero_stage=0, dtype="fp32"))
