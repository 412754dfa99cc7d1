"""When a run's losses say that it is lost: a value that is not finite, or a spike that does not go away.

What counts as high is from OLMo 2's spike score (arXiv 2501.00656), which measures how unsteady a run was by the share
of values at least 7 standard deviations from the mean of the last 1,000. The rest of the rule is ours: only losses
above the mean count; most spikes recover by themselves, so it takes `training.spike_steps` of them in a row to end the
job; and losses of a spike do not enter the mean, which would soon make it look ordinary. All ranks see the same losses,
so they all end.
"""

import math
from collections import deque
from collections.abc import Iterable

import numpy as np

from prox_hpc.config import Training
from prox_hpc.errors import UserError

WINDOW = 1000
SIGMAS = 7.0
ENOUGH = 100
"""Losses before which nothing is judged: at first they fall too fast for their spread to mean anything."""


class Guard:
    """Looks at every step's loss; `before` are those of the steps a resumed run does not repeat."""

    def __init__(self, settings: Training, before: Iterable[float] = ()) -> None:
        self.settings = settings
        self._calm: deque[float] = deque(maxlen=WINDOW)
        self._high: list[float] = []
        for loss in before:
            self._is_high(loss)

    def check(self, step: int, loss: float, norm: float | None) -> None:
        """UserError when training is lost; norm: of the gradient before clipping, where DeepSpeed tells it."""
        remedy = (
            f"lower training.learning_rate={self.settings.learning_rate} or raise "
            f"training.warmup_steps={self.settings.warmup_steps}, which begins anew"
        )
        if not math.isfinite(loss) or (norm is not None and not math.isfinite(norm)):
            raise UserError(f"the loss at step {step} is {loss}, the gradient norm {norm}: training diverged; {remedy}")
        if self._is_high(loss) and 0 < self.settings.spike_steps <= len(self._high):
            raise UserError(
                f"the loss at step {step} is {loss:.4g}, and has been {SIGMAS:g} standard deviations above its mean "
                f"({np.mean(self._calm):.4g} over {len(self._calm)} steps) for {len(self._high)} steps: a spike that "
                f"does not go away; {remedy}, or train through it with training.spike_steps=0"
            )

    @property
    def in_a_spike(self) -> bool:
        """Whether the last loss was of a spike that may end the job: no state to go back to."""
        return self.settings.spike_steps > 0 and bool(self._high)

    def _is_high(self, loss: float) -> bool:
        """Whether this loss belongs to a spike; kept for judging the next one."""
        calm = np.array(self._calm)
        if len(calm) >= ENOUGH and loss > calm.mean() + SIGMAS * calm.std():
            self._high.append(loss)
            return True
        self._high.clear()
        self._calm.append(loss)
        return False
