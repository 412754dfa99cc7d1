"""The one DeepSpeed loop, for fine-tuning the refiner and for pre-training trainees.

A run is decided by (model, stream, settings, seed): learning rate and data are functions of the step, and a step's loss
is the weighted mean over its whole batch however ranks and micro-batches divide it, so runs on 1 and on 2 ranks differ
only by rounding. At every checkpoint, every `training.save_minutes` and when the job is told to end, the loop saves
the state to resume from (`prox_hpc.train.state`); a run started again goes on from there, its losses equal bit for bit.

What the ranks have to agree on (is it time to save, was anybody told to end) travels with the sums of the loss, so that
agreeing costs no message of its own.
"""

import atexit
import json
import logging
import math
import os
import platform
import resource
import shutil
import time
import warnings
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from prox_hpc.config import Training
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_directory, publish_file, publish_json
from prox_hpc.stop import Interrupted
from prox_hpc.task import Task
from prox_hpc.train import schedule, tracker
from prox_hpc.train.data import Batch, Stream
from prox_hpc.train.flops import Flops, training_flops
from prox_hpc.train.guard import Guard
from prox_hpc.train.shapes import Parameters, parameters_of
from prox_hpc.train.state import States, folder_of
from prox_hpc.train.watch import Watch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


WISHES = ("save", "end", "requeue")
"""What ranks ask of each other at every step."""
LOG_S = 60
LOGGED = ("loss", "lr", "grad_norm", "tokens_per_second", "mfu", "memory_gb")
"""Figures of a line of the log, which is written so often."""
SUB_GROUP = 1_000_000_000
"""Weights that stage 3 updates at a time (DeepSpeed's default)."""


@dataclass(frozen=True)
class Summary:
    """What a finished run amounts to; `asdict` of it goes into run.json and refiner.json.

    tokens: without padding. loss: mean of the last 10 steps. flops: Kaplan's rule; exact_flops: with attention and LM
    head. seconds: spent in steps, over all attempts (a step repeated after a resume counts once). mfu: share of the
    devices' peak that the middle step (median) reached, by the exact FLOPs and by Kaplan's rule; None where
    cluster.peak_tflops is not set. memory_gb: the most one rank had, of the GPU's memory, without one of the machine's;
    in this attempt.
    """

    steps: int
    tokens: int
    rows: int
    epochs: float
    loss: float
    flops: float
    exact_flops: float
    seconds: float
    tokens_per_second: float
    mfu: float | None
    mfu_kaplan: float | None
    memory_gb: float
    parameters: dict[str, int]
    world_size: int
    device: str
    versions: dict[str, str]


def train(
    model: "PreTrainedModel",
    stream: Stream,
    settings: Training,
    task: Task,
    *,
    tokenizer: "PreTrainedTokenizerBase | None",
    device: str = "cpu",
    export_last: Path | None = None,
) -> Summary:
    """Train `model` in place for the token budget of `settings`; every rank calls this.

    Exports `task.out/checkpoints/step-NNNNNN/` (weights as safetensors, tokenizer, checkpoint.json) at the steps of
    `schedule.checkpoint_steps`, or only the final model to `export_last`; publishes `task.out/losses.jsonl` at the end.
    The resume state stays, so that a run killed just after is not trained again: call `forget(task)` when the caller's
    own products are published. Interrupted: told to stop (`task.stop` of any rank), the state is saved. UserError:
    settings that do not fit, no such device, a loss that is not finite or spikes.
    """
    schedule.check(settings, task.world_size)
    tracker.check(settings.tracker)
    limit = getattr(model.config, "max_position_embeddings", stream.context)
    if stream.context != settings.context or settings.context > limit:
        raise UserError(
            f"training.context={settings.context}: the data has rows of {stream.context} and the model takes at most "
            f"{limit} positions; change training.context or the shape's max_position_embeddings"
        )
    parameters = parameters_of(model)  # before ZeRO-3 empties them
    start_process_group(device, settings.stall_timeout_s)
    with Watch(task.state / "pulse", task, settings.stall_timeout_s) as watch:
        run = _Run(model, stream, settings, task, tokenizer, parameters, device, watch)
        try:
            run.train(export_last)
            return run.finish()
        finally:
            run.close()


def forget(task: Task) -> None:
    """Delete a finished run's resume state."""
    if task.rank == 0:
        shutil.rmtree(folder_of(task), ignore_errors=True)


def start_process_group(device: str, stall_timeout_s: float) -> None:
    """Join the ranks named by the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT); without it be the only one.

    gloo on cpu, nccl on cuda. They give up a collective after twice `stall_timeout_s`, since they cannot tell which
    rank they waited for and `Watch` can. On a CPU DeepSpeed would compile a shared-memory all-reduce (45 s, needs a
    compiler) that gives no gain; with no op marked compatible it uses gloo.
    """
    if device not in ("cpu", "cuda"):
        raise UserError(f"device={device}: must be cpu or cuda")
    os.environ.setdefault("DS_ACCELERATOR", device)
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it
    import torch

    if device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("device=cuda: torch sees no GPU on this node; use cluster.device=cpu or ask for GPUs")
        if torch.cuda.device_count() == 1:  # sites that bind a GPU to each rank: it is number 0 for all of them
            os.environ["LOCAL_RANK"] = "0"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    import deepspeed
    from transformers.utils import logging as transformers_logging

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings(
        "ignore", message=".*all_gather_into_tensor.*|.*reduce_scatter_tensor.*", category=FutureWarning
    )
    if torch.distributed.is_initialized():
        return
    if device == "cpu":
        deepspeed.ops.__compatible_ops__ = {}  # also spares the probing, which runs the compiler
    backend = "nccl" if device == "cuda" else "gloo"
    if os.environ.get("WORLD_SIZE", "1") == "1":  # alone: no port to choose, nothing for child processes to inherit
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    patience = timedelta(seconds=2 * stall_timeout_s)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=patience)
    atexit.register(lambda: torch.distributed.is_initialized() and torch.distributed.destroy_process_group())


class _Run:
    """State of a run: the DeepSpeed engine, the step, what was consumed, and the log of losses."""

    def __init__(
        self,
        model: "PreTrainedModel",
        stream: Stream,
        settings: Training,
        task: Task,
        tokenizer: "PreTrainedTokenizerBase | None",
        parameters: Parameters,
        device: str,
        watch: Watch,
    ) -> None:
        self.stream, self.settings, self.task, self.tokenizer = stream, settings, task, tokenizer
        self.parameters, self.device, self.watch = parameters, device, watch
        self.rows = schedule.batch_rows(settings)
        self.accumulation = schedule.accumulation(settings, task.world_size)
        self.states = States(task, settings.zero_stage)
        saved = self.states.newest()
        self.guard = Guard(settings, self.states.losses(saved))
        resized = self.states.resized(saved)
        self.engine = _engine(model, settings, self.accumulation, task.world_size, universal=resized)
        self.states.load(self.engine, saved)
        self.step, self.tokens, self.seconds = (saved.step, saved.tokens, saved.seconds) if saved else (0, 0, 0.0)
        self.saved_step, self.saved_at = self.step, time.monotonic()
        self.save_is_due = self.ending = False
        self.logged_at = time.monotonic()
        self.track, self.close = tracker.open_tracker(settings.tracker if task.rank == 0 else "none", task, self.step)

    def train(self, export_last: Path | None) -> None:
        """All steps that are left, with the checkpoints and saved states in between."""
        last, exports = schedule.steps(self.settings), set(schedule.checkpoint_steps(self.settings))
        while self.step < last:
            figures = self.update()
            shown = {key: figures[key] for key in ("loss", "tokens_per_second", "mfu") if figures.get(key) is not None}
            self.task.progress(self.step, last, "steps", **shown)
            self.log(figures, last)
            self.watch.at("saving", self.step)
            if self.step in exports:
                if export_last is None:
                    self.export(self.task.out / "checkpoints" / f"step-{self.step:06d}")
                elif self.step == last:
                    self.export(export_last)
            # In a spike the state from before it stays, to go back to should the spike end the job.
            due = (self.step in exports or self.save_is_due) and not self.guard.in_a_spike
            if due or self.ending or self.step == last:
                self.save()
            if self.ending and self.step < last:
                raise Interrupted(f"the state after step {self.step} of {last} is saved")

    def update(self) -> dict[str, Any]:
        """One optimiser step over all ranks; returns its line of losses.jsonl."""
        import torch

        started = time.perf_counter()
        settings, world = self.settings, self.task.world_size
        rate = schedule.learning_rate(settings, self.step)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        first = self.step * self.rows
        tokens, weight = self.stream.measure(first, self.rows)
        # weighted loss; loss and count of the labels of full weight; what this rank wishes
        sums = torch.zeros(3 + len(WISHES), dtype=torch.float64, device=self.engine.device)
        for micro in range(self.accumulation):
            self.watch.at("reading data", self.step + 1)
            start = first + (micro * world + self.task.rank) * settings.micro_batch
            batch = self.stream.batch(start, settings.micro_batch)
            self.watch.at("computing", self.step + 1)
            loss, parts = self._loss(batch)
            # DeepSpeed divides by accumulation and by ranks: undone here, for the mean over the whole batch
            self.engine.backward(loss * (self.accumulation * world / weight))
            self.engine.step()
            sums[:3] += parts
        sums[3:] = torch.tensor(self._wishes(), dtype=torch.float64)
        if world > 1:
            torch.distributed.all_reduce(sums)
        total, answers, count, *wishes = sums.tolist()
        self._agree(wishes)
        mean = total / weight
        norm = self.engine.get_global_grad_norm()
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.guard.check(self.step, mean, norm)
        seconds = time.perf_counter() - started
        self.seconds += seconds
        figures = {
            "step": self.step,
            "loss": mean,
            "lr": rate,
            "grad_norm": None if norm is None else float(norm),
            "tokens": self.tokens,
            "tokens_per_second": round(tokens / seconds, 1),
            **self._shares(tokens, seconds),
            "memory_gb": round(self._memory() / 1e9, 3),
        }
        if 0 < count < self.rows * settings.context:  # fine-tuning: the loss on the answers alone
            figures["answer_loss"] = answers / count
        if self.task.rank == 0:
            with self.states.log.open("a") as log:
                log.write(json.dumps(figures) + "\n")
            self.track(figures)
        return figures

    def log(self, figures: dict[str, Any], last: int) -> None:
        """A line of the job's log now and then, for who looks there."""
        if self.task.rank or time.monotonic() - self.logged_at < LOG_S:
            return
        self.logged_at = time.monotonic()
        told = [f"{key} {figures[key]:,.4g}" for key in LOGGED if figures.get(key) is not None]
        print(f"step {self.step:,} of {last:,}: {', '.join(told)}", flush=True)

    def _wishes(self) -> list[bool]:
        """This rank's, in the order of WISHES. When to save by the clock is for rank 0 alone to say."""
        settings, stop = self.settings, self.task.stop
        waited = time.monotonic() - self.saved_at
        due = bool(settings.save_minutes) and waited >= 60 * settings.save_minutes and self.task.rank == 0
        return [due, stop.requested, stop.warned]

    def _agree(self, wishes: list[float]) -> None:
        """Wish what any rank wishes. Signals do not reach all ranks within the same step."""
        due, ending, warned = (count > 0 for count in wishes)
        steps = self.settings.save_steps
        self.save_is_due = due or (steps > 0 and (self.step + 1) % steps == 0)
        self.ending = ending
        stop = self.task.stop
        stop.warned |= warned  # rank 0 asks for the requeue, whoever was warned
        if ending:
            stop.reason = stop.reason or "a signal to another rank"

    def _shares(self, tokens: float, seconds: float) -> dict[str, float]:
        """Shares of the devices' peak that so many tokens in this time are; {} where the peak is not known."""
        peak = self.task.step.runtime.get("peak_tflops")
        if not peak:
            return {}
        flops, possible = self.flops(tokens), peak * 1e12 * self.task.world_size * seconds
        return {"mfu": round(flops.exact / possible, 4), "mfu_kaplan": round(flops.kaplan / possible, 4)}

    def _memory(self) -> int:
        """Bytes this rank had at most: allocated on its GPU, or resident where it has none."""
        import torch

        if self.device == "cuda":
            return int(torch.cuda.max_memory_allocated())
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _loss(self, batch: Batch) -> "tuple[torch.Tensor, torch.Tensor]":
        """Sum of weight * cross-entropy over a micro-batch (to differentiate), and the sums to report (float64)."""
        import torch
        import torch.nn.functional as functional

        def put(array: Any) -> torch.Tensor:
            return torch.from_numpy(array).to(self.engine.device)

        more = {} if batch.position_ids is None else {"position_ids": put(batch.position_ids)}
        labels, weights = batch.labels, batch.weights
        if weights is not None:
            # The LM head only where some row has weight: 19 % more tokens a second when fine-tuning a model of a
            # million parameters without weight on the prompt, the loss equal to 3e-4.
            counted = np.flatnonzero((weights > 0).any(axis=0))
            labels, weights = labels[:, counted], weights[:, counted]
            more["logits_to_keep"] = put(counted)
        logits = self.engine(input_ids=put(batch.input_ids), use_cache=False, **more).logits
        each = functional.cross_entropy(logits.flatten(0, 1).float(), put(labels).flatten(), reduction="none")
        if weights is None:
            loss, answers, count = each.sum(), each.new_zeros(()), each.new_zeros(())
        else:
            weight = put(weights).flatten()
            loss = (each * weight).sum()
            answers, count = (each.detach() * (weight == 1)).sum(), (weight == 1).sum()
        return loss, torch.stack([loss.detach().double(), answers.double(), count.double()])

    def flops(self, tokens: float) -> Flops:
        """FLOPs to train on so many tokens."""
        config, counts = self.engine.module.config, self.parameters
        heads = config.num_attention_heads
        return training_flops(
            counts.minus_one_embedding,
            tokens,
            layers=config.num_hidden_layers,
            hidden=heads * (getattr(config, "head_dim", None) or config.hidden_size // heads),
            context=self.settings.context,
            head=counts.total - counts.minus_one_embedding,
            tied=counts.non_embedding == counts.minus_one_embedding,
        )

    def export(self, path: Path) -> None:
        """Publish the weights as they are used in training (bf16 or fp32) with the tokenizer; all ranks call this."""
        import torch

        stage3 = self.settings.zero_stage == 3
        weights = self.engine._zero3_consolidated_16bit_state_dict() if stage3 else self.engine.module.state_dict()
        flops = self.flops(self.tokens)

        def fill(draft: Path) -> None:
            self.engine.module.save_pretrained(draft, state_dict=weights, safe_serialization=True)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(draft)
            about = {"step": self.step, "tokens": self.tokens, "flops": flops.kaplan, "exact_flops": flops.exact}
            publish_json(draft / "checkpoint.json", about)

        if self.task.rank == 0 and not path.exists():
            publish_directory(path, fill)
        torch.distributed.barrier()

    def save(self) -> None:
        """Save the state to resume from, unless this step's is saved."""
        if self.step > self.saved_step:
            self.states.save(self.engine, self.step, self.tokens, self.seconds)
        self.saved_step, self.saved_at = self.step, time.monotonic()

    def finish(self) -> Summary:
        """Publish the log of losses and sum up."""
        import torch

        lines = [json.loads(line) for line in self.states.log.read_text().splitlines()] if self.task.rank == 0 else []
        if self.task.rank == 0:
            log = self.states.log
            publish_file(self.task.out / "losses.jsonl", lambda draft: draft.write_bytes(log.read_bytes()))
        memory = torch.tensor(self._memory(), dtype=torch.float64, device=self.engine.device)
        torch.distributed.all_reduce(memory, op=torch.distributed.ReduceOp.MAX)  # the others wait for the file as well
        losses = [line["loss"] for line in lines[-10:]]
        shares = {
            key: median(found) if (found := [line[key] for line in lines if key in line]) else None
            for key in ("mfu", "mfu_kaplan")
        }
        flops = self.flops(self.tokens)
        packages = ("torch", "transformers", "deepspeed", "numpy")
        return Summary(
            steps=self.step,
            tokens=self.tokens,
            rows=self.step * self.rows,
            epochs=self.step * self.rows / self.stream.rows,
            loss=sum(losses) / len(losses) if losses else math.nan,
            flops=flops.kaplan,
            exact_flops=flops.exact,
            seconds=self.seconds,
            tokens_per_second=self.tokens / self.seconds,
            mfu=shares["mfu"],
            mfu_kaplan=shares["mfu_kaplan"],
            memory_gb=float(memory) / 1e9,
            parameters=asdict(self.parameters),
            world_size=self.task.world_size,
            device=self.device,
            versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        )


def _engine(
    model: "PreTrainedModel", settings: Training, accumulation: int, world_size: int, *, universal: bool
) -> Any:
    """The DeepSpeed engine: AdamW over all parameters (ProX decays norms and biases too), ZeRO by `zero_stage`.

    universal: it will load a universal checkpoint.
    """
    import deepspeed
    import torch

    if settings.activation_checkpointing:
        # Stage 3 frees the weights in between: what is recomputed then is not what the other form checks it against.
        reentrant = {"use_reentrant": settings.zero_stage == 3}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=reentrant)
    configuration: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": settings.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": settings.micro_batch * accumulation * world_size,
        "gradient_clipping": settings.grad_clip,
        "steps_per_print": 10**9,
        "bf16": {"enabled": settings.dtype == "bf16"},
        "zero_optimization": {
            "stage": settings.zero_stage,
            "overlap_comm": False,  # nothing to overlap on a CPU; on GPUs a matter of tuning, not of results
            "contiguous_gradients": False,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
            "stage3_gather_16bit_weights_on_model_save": True,
            "sub_group_size": SUB_GROUP,
        },
        "checkpoint": {"load_universal": universal},
    }
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=1e-8,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    _put_over(configuration, settings.deepspeed)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=configuration)
    if settings.compile:
        engine.compile()
    engine.train()
    return engine


def _put_over(configuration: dict[str, Any], more: dict[str, Any]) -> None:
    """Put `more` over a nested configuration, in place."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(configuration.get(key), dict):
            _put_over(configuration[key], value)
        else:
            configuration[key] = value
