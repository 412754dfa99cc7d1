"""How much must be trained on a refined corpus for its refining to pay. Pure.

At equal score one token of the refined corpus does the work of s raw ones, s being the saving measured (raw's training
FLOPs / the arm's). Training on one token costs k (6 N by Kaplan's rule), so D refined tokens spare k D (s - 1), and a
cost C beside training (what the ledger charges the arm, in full, less what it charges the baseline) is paid back by

    D* = C / (k (s - 1))  tokens of the refined corpus, trained in one run or in many;
    D* / pool             passes over it: above 1, it has to be used again;
    D* / D_score          training runs to the score that was compared, D_score being the arm's tokens to it.

Never, when s <= 1, even of an arm that cost nothing: it saves nothing, too. That s stays the same for longer runs is an
assumption, and with it the whole figure.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class BreakEven:
    """Infinite: never. passes, runs: None when the pool, or the tokens to the score, are not known."""

    tokens: float
    passes: float | None
    runs: float | None


def break_even(
    cost: float, per_token: float, saving: float, pool: float | None = None, to_score: float | None = None
) -> BreakEven:
    """cost: C. per_token: k, in the same unit. saving: s. pool: the refined corpus's tokens. to_score: D_score.

    A cost of nothing is paid back at once by an arm that saves something. ValueError when a token costs nothing to
    train on.
    """
    if per_token <= 0:
        raise ValueError(f"training on a token must cost something, not {per_token}")
    tokens = max(0.0, cost) / (per_token * (saving - 1)) if saving > 1 else math.inf
    return BreakEven(tokens, tokens / pool if pool else None, tokens / to_score if to_score else None)
