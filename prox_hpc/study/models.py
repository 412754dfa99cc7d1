"""Whether the folders given as models can be used, told from their files before anything is queued.

What is on the hub is left to the tasks.
"""

from pathlib import Path
from typing import Any

from prox_hpc.config import Config
from prox_hpc.errors import UserError
from prox_hpc.study.vocabulary import check_end, check_vocabulary, read_json

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
"""What SGLang reads; training reads the first alone."""
CAUSAL = ("ForCausalLM", "LMHeadModel")
"""How the classes of models that continue a text are named."""


def check_models(config: Config) -> None:
    """UserError for a folder without a whole model that writes text, or whose tokenizer does not fit."""
    refiner, trainee = config.refiner, config.trainee
    for key, value, weights in (
        ("refiner.doc_model", refiner.doc_model, WEIGHTS),
        ("refiner.chunk_model", refiner.chunk_model, WEIGHTS),
        ("trainee.model", trainee.model, WEIGHTS[:1]),
    ):
        if value is not None and is_folder(value):
            _check_parts(key, value, {"config.json": "a model", "tokenizer.json": "a tokenizer"})
            _check_model(key, value, weights)
    if trainee.tokenizer is not None and is_folder(trainee.tokenizer):
        _check_parts("trainee.tokenizer", trainee.tokenizer, {"tokenizer.json": "a tokenizer"})
    check_vocabulary(trainee)
    check_end(trainee)


def is_folder(name: str) -> bool:
    """Whether a folder is meant; else it is a hub name."""
    hub = name.count("/") <= 1 and not name.startswith(("/", "./", "../", "~"))
    return Path(name).expanduser().exists() or not hub


def _check_parts(key: str, folder: str, parts: dict[str, str]) -> None:
    for name, what in parts.items():
        options = (name, name.replace("r.json", "r.model"))
        if not any((Path(folder).expanduser() / option).is_file() for option in options):
            raise UserError(f"{key}={folder}: no {name} there, so it is not the folder of {what}; save {what} there")


def _check_model(key: str, folder: str, weights: tuple[str, ...]) -> None:
    if not any(any(Path(folder).expanduser().glob(pattern)) for pattern in weights):
        raise UserError(
            f"{key}={folder}: has no weights ({', '.join(weights)}); give a folder that holds them (a study with "
            "evaluation.keep_checkpoints=last or none has removed those of its checkpoints)"
        )
    classes: Any = read_json(folder, "config.json").get("architectures") or []
    if classes and not any(str(name).endswith(CAUSAL) for name in classes):
        raise UserError(
            f"{key}={folder}: its config.json says architectures={classes}, which is no causal language model "
            "(...ForCausalLM); give one that is"
        )
