"""How a run's token budget becomes steps, micro-batches, learning rates and checkpoints.

Pure arithmetic on the settings, without torch, so that `launch` can refuse a bad setting before anything is queued.
The learning rate is a function of the step alone: a resumed run cannot get it wrong (DeepSpeed's own WarmupCosineLR
also begins with two steps of rate zero).
"""

import math

from prox_hpc.config import Training
from prox_hpc.errors import UserError
from prox_hpc.task import Step

TRACKERS = ("none", "tensorboard", "wandb")


def settings_of(step: Step) -> Training:
    """The settings of a step that trains; how the run goes stands in its runtime (`config.HOW_TRAINING_RUNS`)."""
    return Training(**step.config["training"], **step.runtime.get("training", {}))


def check(settings: Training, world_size: int = 1) -> None:
    """UserError when these settings cannot be trained with so many ranks."""
    problems = {
        "tokens": settings.tokens < 1,
        "context": settings.context < 2,
        "micro_batch": settings.micro_batch < 1,
        "batch_tokens": settings.batch_tokens < 1,
        "checkpoints": settings.checkpoints < 1,
        "warmup_steps": settings.warmup_steps < 0,
        "decay_steps": settings.decay_steps < 0,
        "learning_rate": not 0 < settings.learning_rate < math.inf,
        "min_learning_rate": not 0 <= settings.min_learning_rate <= settings.learning_rate,
        "weight_decay": not 0 <= settings.weight_decay < math.inf,
        "beta1": not 0 <= settings.beta1 < 1,
        "beta2": not 0 <= settings.beta2 < 1,
        "grad_clip": not settings.grad_clip >= 0,  # 0: not at all
        "save_minutes": not settings.save_minutes >= 0,
        "save_steps": settings.save_steps < 0,
        "stall_timeout_s": settings.stall_timeout_s < 1,
        "spike_steps": settings.spike_steps < 0,
    }
    for key, wrong in problems.items():
        if wrong:
            raise UserError(f"training.{key}={getattr(settings, key)}: out of range (see prox_hpc/config.py)")
    choices = {
        "schedule": ("cosine", "wsd", "constant"),
        "dtype": ("bf16", "fp32"),
        "zero_stage": (0, 1, 2, 3),
        "tracker": TRACKERS,
    }
    for key, options in choices.items():
        if getattr(settings, key) not in options:
            known = ", ".join(map(str, options))
            raise UserError(f"training.{key}={getattr(settings, key)}: unknown; one of {known}")
    if settings.batch_tokens > settings.tokens:
        raise UserError(
            f"training.batch_tokens={settings.batch_tokens}: one batch is more than training.tokens={settings.tokens}, "
            "the whole budget; lower it or raise training.tokens"
        )
    if settings.schedule_tokens is not None and settings.schedule_tokens < settings.tokens:
        raise UserError(
            f"training.schedule_tokens={settings.schedule_tokens}: the learning rate would be at its end before "
            f"training.tokens={settings.tokens} are trained on; raise it, or leave it out"
        )
    if settings.zero_stage == 0 and settings.dtype == "bf16":
        raise UserError(
            "training.zero_stage=0 with dtype=bf16 takes a phantom optimiser step in DeepSpeed; use zero_stage=1"
        )
    if settings.schedule == "wsd" and settings.min_learning_rate == 0:
        raise UserError("training.min_learning_rate=0: the wsd schedule decays exponentially and must end above zero")
    if settings.warmup_steps + (settings.decay_steps if settings.schedule == "wsd" else 0) > schedule_steps(settings):
        raise UserError(
            f"training.warmup_steps={settings.warmup_steps} and decay_steps={settings.decay_steps}: the schedule has "
            f"only {schedule_steps(settings)} steps of {settings.batch_tokens} tokens; shorten them or raise "
            "training.tokens"
        )
    accumulation(settings, world_size)


def steps(settings: Training) -> int:
    """Optimiser steps of the run: the token budget in whole batches, rounded up."""
    return math.ceil(settings.tokens / settings.batch_tokens)


def schedule_steps(settings: Training) -> int:
    """Steps the learning rate's schedule is made for: those of the run, unless it stops before the schedule's end."""
    return math.ceil((settings.schedule_tokens or settings.tokens) / settings.batch_tokens)


def batch_rows(settings: Training) -> int:
    """Rows (sequences of `context` tokens) of one optimiser step over all ranks."""
    return settings.batch_tokens // settings.context


def accumulation(settings: Training, world_size: int) -> int:
    """Micro-batches of one rank per optimiser step; UserError unless the batch divides evenly."""
    share = settings.micro_batch * settings.context * world_size
    if settings.batch_tokens % share:
        raise UserError(
            f"training.batch_tokens={settings.batch_tokens} must be a multiple of micro_batch * context * ranks = "
            f"{settings.micro_batch} * {settings.context} * {world_size} = {share}"
        )
    return settings.batch_tokens // share


def checkpoint_steps(settings: Training) -> list[int]:
    """Steps after which a checkpoint is exported: evenly spaced, ascending, the last one at the end."""
    last = steps(settings)
    count = min(settings.checkpoints, last)
    return [round(last * (i + 1) / count) for i in range(count)]


def learning_rate(settings: Training, step: int) -> float:
    """Rate of the update that follows `step` finished updates (0-based).

    Linear warm-up that reaches the full rate with update `warmup_steps`; then cosine to `min_learning_rate` at the
    schedule's end; or wsd: constant, and over the last `decay_steps` exponential down to the minimum (MATES:
    eta * 0.5^(4 t / D), which is a minimum of eta / 16); or constant.
    """
    top, low, total = settings.learning_rate, settings.min_learning_rate, schedule_steps(settings)
    if step < settings.warmup_steps:
        return top * (step + 1) / settings.warmup_steps
    if settings.schedule == "cosine":
        done = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
        return low + (top - low) * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "wsd" and settings.decay_steps:
        done = max(0, step + 1 - (total - settings.decay_steps)) / settings.decay_steps
        return float(top * (low / top) ** done)
    return top
