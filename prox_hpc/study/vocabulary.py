"""Whether a tokenizer fits the model it is to train, told from their folders before anything is queued.

A task would find out too, hours later in a queue. What is on the hub, and a tokenizer without `tokenizer.json` (whose
tokens only its own library knows), is left to the tasks.
"""

import json
from pathlib import Path
from typing import Any

from prox_hpc.config import Trainee
from prox_hpc.errors import UserError


def check_vocabulary(trainee: Trainee) -> None:
    """UserError when the model lacks embeddings for some tokens, or was trained with another tokenizer."""
    tokens = vocabulary(trainee.tokenizer)
    if not tokens:
        return
    needed = 1 + max(tokens.values())
    rows = embeddings(trainee.model) if trainee.model else trainee.shape.vocab_size
    if rows is not None and rows < needed:
        whose = f"trainee.model={trainee.model} has" if trainee.model else "trainee.shape.vocab_size gives"
        remedy = "take its own tokenizer" if trainee.model else f"set it to {needed} or more"
        raise UserError(f"trainee.tokenizer={trainee.tokenizer}: has {needed} tokens, {whose} {rows}; {remedy}")
    own = vocabulary(trainee.model)
    other = sum(tokens.get(token) != number for token, number in own.items())
    if other:
        raise UserError(
            f"trainee.tokenizer={trainee.tokenizer}: is not that of trainee.model={trainee.model}, {other} of whose "
            f"{len(own)} tokens it lacks or numbers otherwise; set trainee.tokenizer={trainee.model}"
        )


GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of tokenizers that have no special token but those their folder names."""


def check_end(trainee: Trainee) -> None:
    """UserError when a folder's tokenizer certainly has no EOS token, which must stand between documents."""
    about = read_json(trainee.tokenizer, "tokenizer_config.json")
    if about.get("eos_token") or read_json(trainee.tokenizer, "special_tokens_map.json").get("eos_token"):
        return
    if "eos_token" in about or about.get("tokenizer_class") in GENERIC:  # other classes have one of their own
        raise UserError(
            f"trainee.tokenizer={trainee.tokenizer}: has no EOS token, which must stand between documents; name one of "
            "its tokens as eos_token in its tokenizer_config.json"
        )


def vocabulary(name: str | None) -> dict[str, int]:
    """Tokens and their ids of a folder's `tokenizer.json`; {} when there is none, or `name` is a hub name."""
    about = read_json(name, "tokenizer.json")
    if not about:
        return {}
    try:
        tokens = about["model"]["vocab"]
        listed = isinstance(tokens, list)  # Unigram: [token, score] in the order of their ids
        ids = {token: number for number, (token, _) in enumerate(tokens)} if listed else dict(tokens)
        return ids | {token["content"]: token["id"] for token in about.get("added_tokens", [])}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{name}/tokenizer.json: is no tokenizer ({error!r}); save the tokenizer again") from error


def embeddings(name: str) -> int | None:
    """`vocab_size` of a folder's `config.json`; None when it does not say, or `name` is a hub name."""
    return read_json(name, "config.json").get("vocab_size")


def read_json(name: str | None, file: str) -> dict[str, Any]:
    """What a file of a folder says; {} when there is none, or `name` is a hub name."""
    path = Path(name or "").expanduser() / file
    if not name or not path.is_file():
        return {}
    try:
        about: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}); save it again") from error
    if not isinstance(about, dict):
        raise UserError(f"{path}: is no JSON object; save it again")
    return about
