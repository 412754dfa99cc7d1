"""One rank of a small DeepSpeed run, as a process of its own: `python rank.py SETTINGS.json` with RANK and WORLD_SIZE.

SETTINGS.json: store, tokens (a block of uint16 ids), training, and die_at: the step at which the process kills itself.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from prox_hpc.config import Shape, Training
from prox_hpc.task import Step, Task
from prox_hpc.train.data import Packed
from prox_hpc.train.loop import train
from prox_hpc.train.shapes import build_model


class MortalTask(Task):
    die_at: int | None = None

    def progress(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        super().progress(done, total, unit, **figures)
        if done == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    settings = Training(**given["training"])
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    task = MortalTask(Step("pretrain", "run", {}), 0, Path(given["store"]), rank, world_size)
    task.die_at = given["die_at"]
    model = build_model(Shape(64, 128, 2, 2, 1, 256, 64), seed=1, eos_token_id=0)
    stream = Packed([Path(given["tokens"])], "<u2", settings.context, seed=1)
    summary = train(model, stream, settings, task, tokenizer=None)
    if rank == 0:
        (task.out / "summary.json").write_text(json.dumps(asdict(summary)))


if __name__ == "__main__":
    main()
