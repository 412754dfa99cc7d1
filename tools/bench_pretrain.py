"""Training speed: the project's DeepSpeed loop beside a plain PyTorch loop of the same model, data and settings.

    python tools/bench_pretrain.py                                              # CPU: 20M parameters, 5 pairs
    python tools/bench_pretrain.py --device cuda --size 0.3b --peak-tflops 989  # one GPU: tokens/s, share of the peak

The plain loop is what one would write by hand: weights in bf16 with an fp32 copy for AdamW (as DeepSpeed keeps it), or
fp32; the same rows in the same order, micro-batches, fused AdamW, clipping, learning rates, `torch.compile` of the
model; the loss is read at every step, as the loop has to. It shards nothing, saves nothing and survives nothing.

Each run is a process of its own; the two loops take turns, and turns in going first, so that a slow minute of the
machine slows both. A step is timed from the end of the one before, so what the loop does between steps (log, status)
counts. A run's figure is its median step, without the first `--skip` (compiling, warm caches); a pair's ratio is
DeepSpeed's tokens a second over plain PyTorch's, and beside it stands the same by the mean step, which rare hitches
enter. Losses at the last step that differ by more than 1 % end the benchmark. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bench_programs import machine, spread

from prox_hpc.config import Shape, Training
from prox_hpc.task import Step, Task
from prox_hpc.train import schedule
from prox_hpc.train.data import Packed
from prox_hpc.train.flops import training_flops
from prox_hpc.train.shapes import build_model, count_parameters

# shape, context, rows per micro-batch, micro-batches per step
SIZES = {
    "5m": (Shape(256, 688, 5, 4, 4, 2048, 256), 256, 8, 2),
    "20m": (Shape(384, 1024, 8, 6, 6, 8192, 256), 256, 8, 1),
    "0.3b": (Shape(1280, 2048, 24, 16, 1, 32_000, 2048), 2048, 16, 2),
    "0.7b": (Shape(1536, 4864, 24, 24, 2, 32_000, 2048), 2048, 8, 4),
    "1.7b": (Shape(2048, 8192, 24, 32, 32, 32_000, 2048), 2048, 8, 4),
}


def settings_of(options: argparse.Namespace) -> Training:
    _, context, rows, accumulation = SIZES[options.size]
    rows = options.micro_batch or rows
    batch = context * rows * accumulation
    return Training(
        tokens=batch * options.steps,
        context=context,
        batch_tokens=batch,
        micro_batch=rows,
        warmup_steps=min(5, options.steps),
        dtype=options.dtype,
        zero_stage=options.zero_stage,
        compile=options.compile,
        checkpoints=1,
        save_minutes=0,
    )


@dataclass
class Timed(Task):
    """Notes when each step is over, the log and the status of the one before included."""

    ends: list[float] = field(default_factory=list)

    def progress(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        super().progress(done, total, unit, **figures)
        self.ends.append(time.perf_counter())


def with_deepspeed(options: argparse.Namespace, stream: Packed, folder: Path) -> tuple[list[float], float]:
    """-> when each step was over (in seconds), loss of the last one."""
    from prox_hpc.train.loop import train

    settings, shape = settings_of(options), SIZES[options.size][0]
    task = Timed(Step("pretrain", "bench", {}), 0, folder)
    train(build_model(shape, 1), stream, settings, task, tokenizer=None, device=options.device)
    lines = (task.out / "losses.jsonl").read_text().splitlines()
    return task.ends, json.loads(lines[-1])["loss"]


def by_hand(options: argparse.Namespace, stream: Packed) -> tuple[list[float], float]:
    """As `with_deepspeed`, in plain PyTorch."""
    import torch
    from torch.nn.functional import cross_entropy

    settings, shape = settings_of(options), SIZES[options.size][0]
    model = build_model(shape, 1).to(options.device).train()
    masters = list(model.parameters())
    mixed = settings.dtype == "bf16"
    if mixed:
        masters = [torch.nn.Parameter(weight.detach().clone()) for weight in masters]
        model = model.bfloat16()
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(
        masters,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    forward = torch.compile(model) if settings.compile else model
    ends, loss = [], math.nan
    rows, accumulation = schedule.batch_rows(settings), schedule.accumulation(settings, 1)
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(settings, step)
        total = torch.zeros((), device=options.device)
        for micro in range(accumulation):
            batch = stream.batch(step * rows + micro * settings.micro_batch, settings.micro_batch)
            inputs, labels = (torch.from_numpy(part).to(options.device) for part in (batch.input_ids, batch.labels))
            logits = forward(input_ids=inputs, use_cache=False).logits
            part = cross_entropy(logits.flatten(0, 1).float(), labels.flatten()) / accumulation
            part.backward()
            total += part.detach()
        if mixed:
            for master, weight in zip(masters, weights, strict=True):
                assert weight.grad is not None
                master.grad, weight.grad = weight.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        if mixed:
            with torch.no_grad():
                torch._foreach_copy_(weights, masters)
        loss = total.item()
        ends.append(time.perf_counter())
    return ends, loss


def one_run(options: argparse.Namespace) -> dict[str, Any]:
    """Train once, in this process."""
    import torch

    settings, shape = settings_of(options), SIZES[options.size][0]
    ids = np.random.default_rng(0).zipf(1.3, settings.tokens + 1) % shape.vocab_size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "00000.bin"
        path.write_bytes(ids.astype("<u2").tobytes())
        stream = Packed([path], "<u2", settings.context, seed=1)
        if options.one == "deepspeed":
            ends, loss = with_deepspeed(options, stream, Path(folder))
        else:
            ends, loss = by_hand(options, stream)
    seconds = np.diff(ends)[options.skip - 1 :]
    return {
        "tokens_per_second": settings.batch_tokens / statistics.median(seconds),
        "whole": settings.batch_tokens / statistics.mean(seconds),
        "loss": loss,
        "threads": torch.get_num_threads(),
    }


def in_a_process(loop: str, arguments: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments, "--one", loop]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{loop} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def share_of_peak(options: argparse.Namespace, tokens_per_second: float) -> dict[str, float]:
    """By the exact FLOPs and by Kaplan's rule; {} without --peak-tflops."""
    if not options.peak_tflops:
        return {}
    shape, context, *_ = SIZES[options.size]
    flops = training_flops(
        count_parameters(shape).minus_one_embedding,
        tokens_per_second,
        layers=shape.num_hidden_layers,
        hidden=shape.hidden_size,
        context=context,
        head=shape.vocab_size * shape.hidden_size,
    )
    peak = options.peak_tflops * 1e12
    return {"mfu": round(flops.exact / peak, 4), "mfu_kaplan": round(flops.kaplan / peak, 4)}


def ratios(rates: dict[str, list[float]]) -> list[float]:
    """DeepSpeed's rate over plain PyTorch's, of each pair."""
    return [own / plain for own, plain in zip(rates["deepspeed"], rates["plain"], strict=True)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=SIZES, default="20m")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--zero-stage", type=int, default=1)
    parser.add_argument("--micro-batch", type=int, help="rows (default: the size's own)")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--skip", type=int, default=5, help="steps left out at the start")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--peak-tflops", type=float, help="dense TFLOP/s of the device, for its share")
    parser.add_argument("--one", choices=("deepspeed", "plain"), help=argparse.SUPPRESS)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    if not 1 <= options.skip < options.steps:
        parser.error(f"--skip {options.skip}: must be at least 1 and less than --steps {options.steps}")
    if options.one:
        print(json.dumps(one_run(options)))
        return 0
    runs: dict[str, list[dict[str, Any]]] = {"deepspeed": [], "plain": []}
    for pair in range(options.pairs):
        for loop in sorted(runs, reverse=bool(pair % 2)):
            runs[loop].append(in_a_process(loop, arguments))
    for own, plain in zip(runs["deepspeed"], runs["plain"], strict=True):
        if not math.isclose(own["loss"], plain["loss"], rel_tol=0.01):
            raise RuntimeError(f"the two loops trained differently: losses {own['loss']} and {plain['loss']}")
    rates, wholes = (
        {loop: [run[key] for run in found] for loop, found in runs.items()} for key in ("tokens_per_second", "whole")
    )
    result = {
        "parameters": count_parameters(SIZES[options.size][0]).total,
        "settings": {key: value for key, value in vars(options).items() if key != "one"},
        "ratio": spread(ratios(rates), 3),
        "ratio_by_mean_step": spread(ratios(wholes), 3),
        "tokens_per_second": {loop: spread(found, 0) for loop, found in rates.items()},
        "share_of_peak": {loop: share_of_peak(options, statistics.median(found)) for loop, found in rates.items()},
        "last_loss": {loop: [round(run["loss"], 4) for run in found] for loop, found in runs.items()},
        "threads": sorted({run["threads"] for found in runs.values() for run in found}),
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
