"""Step `pretrain`: one trainee on one arm's tokens with one seed.

Every arm gets the same token budget (`training.tokens`); a corpus smaller than that is read for several epochs, a
larger one in part, and `run.json` says how many epochs it was. One that does not fill a single batch is refused: its
rows would stand in every batch several times. The seed decides the initial weights and the order of the rows. A task
that is told to end saves its state and is resumed from there (`prox_hpc.train.loop`).
"""

import json
import math
from dataclasses import asdict
from typing import Any

from prox_hpc.errors import UserError
from prox_hpc.pretrain.tokenize import load_tokenizer
from prox_hpc.publish import publish_json
from prox_hpc.task import Task
from prox_hpc.train import schedule
from prox_hpc.train.data import Packed

GRACEFUL = True
"""The worker's signal handlers set `task.stop`, which the training loop looks at."""


def run(task: Task) -> None:
    """Train and publish `checkpoints/step-NNNNNN/`, `losses.jsonl` and, last, `run.json`; all ranks call this."""
    from prox_hpc.train import loop, shapes

    if (task.out / "run.json").exists():
        loop.forget(task)
        return
    settings, seed = schedule.settings_of(task.step), task.config["seed"]
    schedule.check(settings, task.world_size)
    device = task.step.runtime.get("device", "cpu")
    stream = Packed.open(task.input("tokens") / "blocks", settings.context, seed)
    _check_amount(task, stream.total_tokens, settings.batch_tokens)
    loop.start_process_group(device, settings.stall_timeout_s)
    tokenizer = load_tokenizer(task)
    if task.config.get("model"):
        model = shapes.load_model(task.config["model"])
    else:
        model = shapes.build_model(task.config["shape"], seed, eos_token_id=tokenizer.eos_token_id)
    _check_vocabulary(task, model.config.vocab_size, len(tokenizer))
    summary = loop.train(model, stream, settings, task, tokenizer=tokenizer, device=device)
    if task.rank == 0:
        more = {"seed": seed, "corpus_tokens": stream.total_tokens}
        publish_json(task.out / "run.json", asdict(summary) | more)
        loop.forget(task)


def seal(task: Task) -> dict[str, Any]:
    """The content of run.json; raises when a checkpoint is missing or the log of losses has not one line per step."""
    summary: dict[str, Any] = json.loads((task.out / "run.json").read_text())
    for step in schedule.checkpoint_steps(schedule.settings_of(task.step)):
        folder = task.out / "checkpoints" / f"step-{step:06d}"
        for name in ("checkpoint.json", "config.json"):
            if not (folder / name).exists():
                raise FileNotFoundError(
                    f"{folder / name}: the checkpoint is incomplete; delete {task.out}, launch again"
                )
    lines = [json.loads(line) for line in (task.out / "losses.jsonl").read_text().splitlines()]
    if [line["step"] for line in lines] != list(range(1, summary["steps"] + 1)):
        raise ValueError(f"{task.out / 'losses.jsonl'}: {len(lines)} lines for {summary['steps']} steps")
    if not all(math.isfinite(line["loss"]) for line in lines):
        raise ValueError(f"{task.out / 'losses.jsonl'}: has losses that are not finite")
    return summary


def _check_amount(task: Task, tokens: int, batch_tokens: int) -> None:
    """UserError when the arm does not fill one optimiser batch."""
    if tokens < batch_tokens:
        raise UserError(
            f"trainee.training.batch_tokens={batch_tokens}: {task.input('tokens')} holds only {tokens} tokens, less "
            "than one batch; enlarge the corpus, loosen the arm's rules or threshold, or lower batch_tokens"
        )


def _check_vocabulary(task: Task, rows: int, tokens: int) -> None:
    """UserError unless the model has an embedding for every token of the tokenizer and of the packed corpus."""
    manifest = json.loads((task.input("tokens") / "artifact.json").read_text())["summary"]
    if manifest["vocab_size"] != tokens:
        raise UserError(
            f"trainee.tokenizer: has {tokens} tokens, but the corpus was packed with one of {manifest['vocab_size']}; "
            f"use the same tokenizer"
        )
    if rows < tokens:
        raise UserError(
            f"trainee.shape.vocab_size={rows}: the tokenizer has {tokens} tokens; set it to {tokens} or more "
            f"(a multiple of 64 is quickest)"
        )
