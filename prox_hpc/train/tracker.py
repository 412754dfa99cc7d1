"""Where a run's figures are shown while it trains: in TensorBoard's event files, at Weights & Biases, or nowhere.

`losses.jsonl` holds the same figures in any case; a tracker is for watching. Its files are no products: they lie in the
step's state folder, and a resumed run writes on in them.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from prox_hpc.errors import UserError
from prox_hpc.task import Task

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""tensorboardX writes the files without TensorBoard's own server, which is needed only where one looks at them."""

Track = Callable[[Mapping[str, Any]], None]
"""Takes a step's line of losses.jsonl."""


def check(name: str) -> None:
    """UserError when the tracker's package is not installed here."""
    package = PACKAGES.get(name)
    if package and find_spec(package) is None:
        raise UserError(
            f"training.tracker={name}: the package {package} is not installed; pip install {package}, or use "
            "training.tracker=none (losses.jsonl has the same figures)"
        )


def open_tracker(name: str, task: Task, step: int) -> tuple[Track, Callable[[], None]]:
    """-> what takes the figures of each step, and what ends it; `step`: steps done before, which stand there already.

    Rank 0 calls this.
    """
    if name == "tensorboard":
        from tensorboardX import SummaryWriter

        writer = SummaryWriter(str(task.state / "tensorboard"), purge_step=step + 1)

        def write(figures: Mapping[str, Any]) -> None:
            for key, value in _numbers(figures).items():
                writer.add_scalar(key, value, figures["step"])

        return write, writer.close
    if name == "wandb":
        import wandb

        run = wandb.init(
            project="prox_hpc",
            name=task.step.name,
            id=task.step.fingerprint,
            resume="allow",
            dir=str(task.state),
            config=task.config,
        )
        return lambda figures: run.log(_numbers(figures), step=figures["step"]), run.finish
    return lambda figures: None, lambda: None


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in figures.items() if key != "step" and value is not None}
