"""One rank of a small DeepSpeed run, as a process of its own: `python rank.py SETTINGS.json` with RANK and WORLD_SIZE.

SETTINGS.json: store, tokens (a block of uint16 ids), training, and meet: {step, rank, signal}, the signal that this
rank (null: every rank) sends itself after that step. Told to end, it exits with status 75, as the worker does.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prox_hpc.config import Shape, Training
from prox_hpc.stop import Interrupted, install
from prox_hpc.task import Step, Task
from prox_hpc.train import loop
from prox_hpc.train.data import Packed
from prox_hpc.train.shapes import build_model


class MeetingTask(Task):
    meet: dict[str, Any] | None = None

    def progress(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        super().progress(done, total, unit, **figures)
        if self.meet and done == self.meet["step"] and self.meet["rank"] in (None, self.rank):
            os.kill(os.getpid(), self.meet["signal"])


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    settings = Training(**given["training"])
    loop.SUB_GROUP = 20_000  # so that stage 3 has several
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    task = MeetingTask(Step("pretrain", "run", {}), 0, Path(given["store"]), rank, world_size)
    task.meet = given["meet"]
    model = build_model(Shape(64, 128, 2, 2, 1, 256, 64), seed=1, eos_token_id=0)
    stream = Packed([Path(given["tokens"])], "<u2", settings.context, seed=1)
    try:
        with install(60) as task.stop:
            summary = loop.train(model, stream, settings, task, tokenizer=None)
    except Interrupted as why:
        print(f"{task.stop.reason}: {why}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    if rank == 0:
        (task.out / "summary.json").write_text(json.dumps(asdict(summary)))


if __name__ == "__main__":
    main()
