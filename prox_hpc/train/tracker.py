"""Where a run's figures are shown while it trains: in TensorBoard's event files, at Weights & Biases, or nowhere.

`losses.jsonl` holds the same figures in any case; a tracker is for watching. So one that fails (a node without network,
a full disk) is told of once and given up, and the run goes on. Its files are no products: they lie in the step's state
folder, and a resumed run writes on in them.
"""

import sys
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

    Rank 0 calls this. Neither raises.
    """
    try:
        track, close = _open(name, task, step)
    except Exception as error:
        _tell(name, error)
        return _nothing, _nothing
    broken = False

    def guarded(call: Callable[..., object]) -> Callable[..., None]:
        def once(*figures: Mapping[str, Any]) -> None:
            nonlocal broken
            if not broken:
                try:
                    call(*figures)
                except Exception as error:
                    broken = True
                    _tell(name, error)

        return once

    return guarded(track), guarded(close)


def _tell(name: str, error: Exception) -> None:
    told = f"warning: training.tracker={name} failed ({type(error).__name__}: {error}); training goes on without it, "
    print(told + "losses.jsonl has the same figures", file=sys.stderr)


def _nothing(*figures: Mapping[str, Any]) -> None:
    """Tracks nothing."""


def _open(name: str, task: Task, step: int) -> tuple[Callable[[Mapping[str, Any]], object], Callable[[], object]]:
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
    return _nothing, _nothing


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in figures.items() if key != "step" and value is not None}
