"""The FLOPs ledger of a study, and the paper's own figures recomputed.

Every stage that computes is a row; rows can be switched in or out of the refining cost, and the report says which are
in. FLOPs by Kaplan's rule (training 6 N D, inference 2 N D, N without one embedding matrix, as the paper counts), and
beside it the exact count with attention and LM head where the shape is known (`prox_hpc.train.flops`).

    python -m prox_hpc.report.flops paper     # published figures beside ours, as JSON
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prox_hpc.config import Shape
from prox_hpc.train.flops import inference_flops
from prox_hpc.train.shapes import count_parameters

# The paper's models (its Table 8; key-value heads from its code): 24 layers, vocabulary 32,000, untied embeddings.
TLM = {
    size: Shape(hidden, ffn, 24, heads, key_value_heads, vocab_size=32_000, max_position_embeddings=2048)
    for size, hidden, ffn, heads, key_value_heads in (
        ("0.3B", 1280, 2048, 16, 1),
        ("0.7B", 1536, 4864, 24, 2),
        ("1.7B", 2048, 8192, 32, 32),
    )
}
STEP_TOKENS = 1024 * 2048  # tokens per optimiser step of the TLM runs
RUN_TOKENS = 12_500 * STEP_TOKENS  # 26.2B
POOL_TOKENS, KEPT_TOKENS = 62.5e9, 19.0e9  # one RedPajama-V2 dump, and what its doc stage leaves


@dataclass(frozen=True)
class Row:
    """One stage of the ledger.

    stage: e.g. "doc pass, prefill". arm: whose cost it is; None for what arms share. refining: part of the refining
    cost that the saving is charged with. flops: Kaplan; exact: with attention and LM head, None when the shape is
    unknown. flops None: the stage is missing or did not record what the count needs (`note` says which).
    """

    stage: str
    flops: float | None
    exact: float | None = None
    tokens: float | None = None
    parameters: int | None = None
    arm: str | None = None
    refining: bool = False
    note: str = ""


def total(rows: Iterable[Row]) -> float:
    """Kaplan FLOPs of the rows that have a count."""
    return sum(row.flops for row in rows if row.flops is not None)


def refining_cost(rows: Iterable[Row], doc: bool, chunk: bool) -> float | None:
    """FLOPs of making the refiner and running the passes an arm uses; None when one of them has no count.

    doc, chunk: whether the arm executes the programs of that stage; the other pass is not charged to it.
    """
    used = [
        row
        for row in rows
        if row.refining and (doc or not row.stage.startswith("doc ")) and (chunk or not row.stage.startswith("chunk "))
    ]
    if not used or any(row.flops is None for row in used):
        return None
    return total(used)


def two_passes(refiner: Shape, doc_tokens: float, chunk_tokens: float) -> float:
    """FLOPs of both passes of one refiner as the paper counts them: prompts only, 2 N (D_raw + D_doc)."""
    parameters = count_parameters(refiner).minus_one_embedding
    return inference_flops(parameters, doc_tokens + chunk_tokens).kaplan


def paper() -> list[dict[str, Any]]:
    """Published figures of arXiv 2409.17115v2 and ours: `figure, published, ours, relative_difference, how`.

    Figure 8's bars are reconstructed from the checkpoints that first reach the printed score: raw at 10,000, 7,500
    and 10,000 steps, refined at 5,000 steps of 2.1M tokens, 6 N D with all parameters, plus the refining cost in the
    share of the 26.2B-token run that was trained. The paper does not say how it computed them.
    """
    cost = two_passes(TLM["0.3B"], POOL_TOKENS, KEPT_TOKENS)
    parameters = {size: count_parameters(shape) for size, shape in TLM.items()}
    base = 6 * parameters["0.3B"].minus_one_embedding * RUN_TOKENS
    figures = [
        ("refining one dump with the 0.3B refiner, FLOPs", 5e19, cost, "2 N (62.5B + 19.0B)"),
        ("pre-training the refiner's base, FLOPs (the paper leaves it out)", 5.3e19, base, "6 N D over 26.2B tokens"),
    ]
    for size, tokens in (("0.7B", 12e9), ("1.7B", 5e9)):
        ours = cost / (6 * parameters[size].minus_one_embedding)
        figures.append((f"the refining in training tokens of the {size} trainee", tokens, ours, "cost / 6 N"))
    bars = {"0.3B": (10_000, 0.42e20, 0.43e20), "0.7B": (7_500, 0.72e20, 0.69e20), "1.7B": (10_000, 2.26e20, 1.35e20)}
    share = 5_000 * STEP_TOKENS / RUN_TOKENS
    for size, (steps, raw, refined) in bars.items():
        step = 6 * parameters[size].total * STEP_TOKENS
        figures.append((f"Figure 8, {size} without ProX, FLOPs", raw, steps * step, f"6 N D over {steps} steps"))
        ours = 5_000 * step + share * cost
        figures.append(
            (f"Figure 8, {size} with ProX, FLOPs", refined, ours, "6 N D over 5000 steps + refining, pro rata")
        )
    keys = ("figure", "published", "ours", "relative_difference", "how")
    return [
        dict(zip(keys, (figure, published, ours, ours / published - 1, how), strict=True))
        for figure, published, ours, how in figures
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m prox_hpc.report.flops", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["paper"], help="paper: the published figures beside ours")
    parser.parse_args()
    print(json.dumps(paper(), indent=1))


if __name__ == "__main__":
    main()
