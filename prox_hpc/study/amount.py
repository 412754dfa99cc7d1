"""Whether an arm has enough text for one batch, as far as that is known before anything is queued.

It is known of an arm whose tokens are published, and of one made from uncompressed files that are too small whatever
the tokenizer: a token stands for a byte at least, a record has more bytes around its text than its EOS token needs, and
nothing but a program makes text longer. Of other arms the `pretrain` step finds out, before it trains.
"""

import json
from pathlib import Path

from prox_hpc.errors import UserError
from prox_hpc.study.plan import Plan
from prox_hpc.study.store import artifact_dir, is_published
from prox_hpc.task import Step


def check_amounts(store: Path, plan: Plan) -> None:
    """UserError for an arm that cannot fill one batch."""
    steps = {step.address: step for step in plan}
    for step in plan:
        if step.kind != "pretrain":
            continue
        tokens, batch = steps[step.inputs["tokens"]], step.config["training"]["batch_tokens"]
        most = _most(tokens, steps)
        if is_published(store, tokens):
            folder = artifact_dir(store, tokens)
            held: int = json.loads((folder / "artifact.json").read_text())["summary"]["tokens"]
            if held < batch:
                _refuse(tokens.name, batch, f"{folder} holds only {held} tokens")
        elif most is not None and most < batch:
            _refuse(tokens.name, batch, f"the files of its corpus have only {most} bytes")


def _refuse(arm: str, batch: int, why: str) -> None:
    raise UserError(
        f"trainee.training.batch_tokens={batch}: {why}, so arm {arm} is less than one batch; enlarge the corpus, "
        "loosen the arm's rules or threshold, or lower batch_tokens"
    )


def _most(tokens: Step, steps: dict[str, Step]) -> int | None:
    """Bytes of the files that an arm's tokens come from; None when its text may be longer than they are."""
    step = tokens if "source" in tokens.config else steps[tokens.inputs["corpus"]]
    files = step.config.get("source", {}).get("files", [])
    if not files or step.config.get("arm", {}).get("kind") == "refined":
        return None
    if not all(file["path"].endswith(".jsonl") for file in files):
        return None
    return sum(file["size"] for file in files)
