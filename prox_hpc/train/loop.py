"""The one DeepSpeed loop, for fine-tuning the refiner and for pre-training trainees.

A run is decided by (model, stream, settings, seed): learning rate and data are functions of the step, and a step's loss
is the weighted mean over its whole batch however ranks and micro-batches divide it, so runs on 1 and on 2 ranks differ
only by rounding. At every checkpoint the loop also saves DeepSpeed's state under the step's state folder; a run started
again goes on from the newest whole state and repeats its losses bit for bit.
"""

import atexit
import json
import logging
import math
import os
import platform
import shutil
import time
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prox_hpc.config import Training
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_directory, publish_file, publish_json, replace_json
from prox_hpc.task import Task
from prox_hpc.train import schedule
from prox_hpc.train.data import Batch, Stream
from prox_hpc.train.flops import Flops, training_flops
from prox_hpc.train.shapes import Parameters, parameters_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Summary:
    """What a finished run amounts to; `asdict` of it goes into run.json and refiner.json.

    tokens: without padding. loss: mean of the last 10 steps. flops: Kaplan's rule; exact_flops: with attention and LM
    head. seconds: spent in steps, over all attempts (a step repeated after a resume counts once).
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
    own products are published. UserError: settings that do not fit, no such device, a loss that is not finite, a resume
    state of another number of ranks.
    """
    schedule.check(settings, task.world_size)
    limit = getattr(model.config, "max_position_embeddings", stream.context)
    if stream.context != settings.context or settings.context > limit:
        raise UserError(
            f"training.context={settings.context}: the data has rows of {stream.context} and the model takes at most "
            f"{limit} positions; change training.context or the shape's max_position_embeddings"
        )
    parameters = parameters_of(model)  # before ZeRO-3 empties them
    start_process_group(device)
    run = _Run(model, stream, settings, task, tokenizer, parameters, device)
    run.resume()
    last = schedule.steps(settings)
    saves = set(schedule.checkpoint_steps(settings))
    while run.step < last:
        figures = run.update()
        task.progress(run.step, last, "steps", loss=figures["loss"], tokens_per_second=figures["tokens_per_second"])
        if run.step in saves:
            if export_last is None:
                run.export(task.out / "checkpoints" / f"step-{run.step:06d}")
            elif run.step == last:
                run.export(export_last)
            run.save()
    return run.finish()


def forget(task: Task) -> None:
    """Delete a finished run's resume state."""
    if task.rank == 0:
        shutil.rmtree(_resume_folder(task), ignore_errors=True)


def start_process_group(device: str) -> None:
    """Join the ranks named by the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT); without it be the only one.

    gloo on cpu, nccl on cuda. On a CPU DeepSpeed would compile a shared-memory all-reduce (45 s, needs a compiler) that
    gives no gain; with no op marked compatible it uses gloo.
    """
    if device not in ("cpu", "cuda"):
        raise UserError(f"device={device}: must be cpu or cuda")
    os.environ.setdefault("DS_ACCELERATOR", device)
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it
    import torch

    if device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("device=cuda: torch sees no GPU on this node; use cluster.device=cpu or ask for GPUs")
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
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
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
    ) -> None:
        self.stream, self.settings, self.task, self.tokenizer = stream, settings, task, tokenizer
        self.parameters, self.device = parameters, device
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.rows = schedule.batch_rows(settings)
        self.accumulation = schedule.accumulation(settings, task.world_size)
        self.engine = _engine(model, settings, self.accumulation, task.world_size)
        self.folder = _resume_folder(task)
        self.log = self.folder / "losses.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)

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
        sums = torch.zeros(
            3, dtype=torch.float64, device=self.engine.device
        )  # weighted loss; loss and count of the labels of full weight
        for micro in range(self.accumulation):
            start = first + (micro * world + self.task.rank) * settings.micro_batch
            batch = self.stream.batch(start, settings.micro_batch)
            loss, parts = self._loss(batch)
            # DeepSpeed divides by accumulation and by ranks: undone here, for the mean over the whole batch
            self.engine.backward(loss * (self.accumulation * world / weight))
            self.engine.step()
            sums += parts
        if world > 1:
            torch.distributed.all_reduce(sums)
        total, answers, count = sums.tolist()
        mean = total / weight
        norm = self.engine.get_global_grad_norm()
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        if not math.isfinite(mean) or (norm is not None and not math.isfinite(norm)):
            raise UserError(
                f"the loss at step {self.step} is {mean}, the gradient norm {norm}: training diverged; lower training."
                f"learning_rate={settings.learning_rate} or raise training.warmup_steps={settings.warmup_steps}"
            )
        seconds = time.perf_counter() - started
        self.seconds += seconds
        figures = {
            "step": self.step,
            "loss": mean,
            "lr": rate,
            "grad_norm": None if norm is None else float(norm),
            "tokens": self.tokens,
            "tokens_per_second": round(tokens / seconds, 1),
        }
        if 0 < count < self.rows * settings.context:  # fine-tuning: the loss on the answers alone
            figures["answer_loss"] = answers / count
        if self.task.rank == 0:
            with self.log.open("a") as log:
                log.write(json.dumps(figures) + "\n")
        return figures

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

    def flops(self) -> Flops:
        """FLOPs so far."""
        config, counts = self.engine.module.config, self.parameters
        heads = config.num_attention_heads
        return training_flops(
            counts.minus_one_embedding,
            self.tokens,
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
        flops = self.flops()

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
        """Save DeepSpeed's state; `resume.json`, replaced when all of it is on the disk, says which state is whole."""
        import torch

        tag = f"step-{self.step:06d}"
        self.engine.save_checkpoint(str(self.folder), tag=tag, client_state={"step": self.step}, save_latest=False)
        for file in (self.folder / tag).iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        torch.distributed.barrier()
        if self.task.rank == 0:
            state = {"tag": tag, "step": self.step, "tokens": self.tokens, "seconds": self.seconds}
            replace_json(self.folder / "resume.json", state | {"world_size": self.task.world_size})
            self._sweep(tag)
        torch.distributed.barrier()

    def _sweep(self, tag: str | None) -> None:
        """Delete all saved states but one: older ones, and what a killed run left half written."""
        for folder in self.folder.glob("step-*"):
            if folder.name != tag:
                shutil.rmtree(folder)

    def resume(self) -> None:
        """Go on from the newest whole state, if there is one; the log of losses is cut back to it."""
        import torch

        path = self.folder / "resume.json"
        state: dict[str, Any] = {"tag": None, "step": 0, "tokens": 0, "seconds": 0.0}
        if path.exists():
            state = json.loads(path.read_text())
        torch.distributed.barrier()  # all have read it before rank 0 may write again
        if state["tag"]:
            if state["world_size"] != self.task.world_size:
                raise UserError(
                    f"{self.folder}: saved by {state['world_size']} ranks, this run has {self.task.world_size}; set "
                    f"the step's processes and nodes back, or delete this folder to train from the start"
                )
            self.engine.load_checkpoint(str(self.folder), tag=state["tag"])
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        if self.task.rank == 0:
            self._sweep(state["tag"])
            lines = self.log.read_text().splitlines(keepends=True)[: self.step] if self.log.exists() else []
            self.log.write_text("".join(lines))

    def finish(self) -> Summary:
        """Publish the log of losses and sum up."""
        import torch

        lines = self.log.read_text().splitlines() if self.task.rank == 0 else []
        if self.task.rank == 0:
            publish_file(self.task.out / "losses.jsonl", lambda draft: draft.write_bytes(self.log.read_bytes()))
        torch.distributed.barrier()
        losses = [json.loads(line)["loss"] for line in lines[-10:]]
        flops = self.flops()
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
            parameters=asdict(self.parameters),
            world_size=self.task.world_size,
            device=self.device,
            versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        )


def _resume_folder(task: Task) -> Path:
    return task.state / "resume"


def _engine(model: "PreTrainedModel", settings: Training, accumulation: int, world_size: int) -> Any:
    """The DeepSpeed engine: AdamW over all parameters (ProX decays norms and biases too), ZeRO by `zero_stage`."""
    import deepspeed
    import torch

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
        },
    }
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=1e-8,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=configuration)
    if settings.compile:
        engine.compile()
    engine.train()
    return engine
