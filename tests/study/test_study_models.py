"""Folders that hold no usable model, ranks without GPUs, and rows too long for a model, before anything is queued."""

import json
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.errors import UserError
from prox_hpc.launch import check
from tests.test_conf import composed

EOS = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "t0"}


def model(path: Path, weights: str = "model.safetensors", tokenizer: dict[str, Any] | None = None, **said: Any) -> str:
    """A folder that has a model's files, but no numbers in them."""
    path.mkdir()
    about = {"vocab_size": 8, "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 256, **said}
    (path / "config.json").write_text(json.dumps(about))
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {f"t{n}": n for n in range(8)}}}))
    (path / "tokenizer_config.json").write_text(json.dumps(EOS if tokenizer is None else tokenizer))
    if weights:
        (path / weights).touch()
    return str(path)


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        check(composed(*overrides, "dry_run=true"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def further(folder: str) -> list[str]:
    """Overrides that train this model further."""
    return [f"trainee.model={folder}", f"trainee.tokenizer={folder}"]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"weights": ""}, "has no weights (*.safetensors); give a folder that holds them"),
        ({"weights": "pytorch_model.bin"}, "has no weights (*.safetensors)"),
        (
            {"architectures": ["BertForMaskedLM"]},
            "architectures=['BertForMaskedLM'], which is no causal language model",
        ),
        ({"architectures": ["LlamaModel"]}, "which is no causal language model"),
        (
            {"max_position_embeddings": 128},
            "trainee.training.context=256: is more than 128, the",
        ),
        ({"tokenizer": {"eos_token": None}}, "has no EOS token, which must stand between documents"),
        ({"tokenizer": {"tokenizer_class": "PreTrainedTokenizerFast"}}, "has no EOS token"),
    ],
)
def test_a_model_that_cannot_be_trained_further(tmp_path: Path, made: dict[str, Any], told: str) -> None:
    folder = model(tmp_path / "model", **made)
    line = refused(*further(folder))
    assert told in line
    assert folder in line


def test_models_that_can_be_used(tmp_path: Path) -> None:
    for number, made in enumerate(
        (
            {},
            {"architectures": ["GPT2LMHeadModel"]},
            {"architectures": None},
            {"max_position_embeddings": None},
            {"tokenizer": {"tokenizer_class": "GPT2Tokenizer"}},  # has an EOS token of its own
        )
    ):
        check(composed(*further(model(tmp_path / str(number), **made)), "dry_run=true"))  # type: ignore[arg-type]


def test_a_refiner_needs_weights_of_any_kind(tmp_path: Path) -> None:
    empty, old = model(tmp_path / "empty", ""), model(tmp_path / "old", "pytorch_model.bin")
    given = ("refiner=xs", "trainee.tokenizer=t", f"refiner.doc_model={old}")
    check(composed(*given, f"refiner.chunk_model={old}", "cluster=slurm", "dry_run=true"))
    assert f"refiner.chunk_model={empty}: has no weights" in refused(*given, f"refiner.chunk_model={empty}")


def test_a_mistyped_folder_is_not_taken_for_a_hub_name() -> None:
    assert "trainee.tokenizer=no/such/folder: no tokenizer.json there" in refused("trainee.tokenizer=no/such/folder")


def test_shapes_and_contexts_of_what_is_made_here() -> None:
    for section in ("trainee", "refiner"):
        assert f"{section}.shape.hidden_size=130" in refused(f"{section}.shape.hidden_size=130")
        line = refused(f"{section}.shape.max_position_embeddings=64")
        assert f"{section}.training.context=" in line
        assert f"{section}.shape.max_position_embeddings; lower it or raise that" in line
    small = ("refiner.shape.vocab_size=100", "trainee.shape.vocab_size=100")
    assert "refiner.shape.vocab_size=100: set it above" in refused(*small)
    unused = ("refiner.shape.hidden_size=130", "arm=[raw]", "trainee.tokenizer=t")
    check(composed(*unused, "dry_run=true"))


def test_every_gpu_has_a_rank() -> None:
    for kind in ("adapt", "pretrain"):
        line = refused("cluster=slurm", f"cluster.resources.{kind}.gpus=8")
        assert f"cluster.resources.{kind}.gpus=8: a node of {kind} has processes=1, but should have one" in line
        assert f"set cluster.resources.{kind}.processes=8" in line
    assert "gpus=0: a node of pretrain has processes=1" in refused("cluster=slurm", "cluster.resources.pretrain.gpus=0")
    site = ("cluster=slurm", "cluster.resources.pretrain.gpus=0", "+cluster.sbatch.gres=gpu:1")
    check(composed(*site, "dry_run=true"))


def test_on_one_machine_no_two_tasks_share_a_gpu() -> None:
    line = refused("cluster.device=cuda")
    assert "cluster.slots=2: two evaluate tasks of 1 slots would be run at once on one GPU" in line
    assert "set cluster.slots=1 (one task at a time), or cluster.resources.default.cpus=2" in line
    check(composed("cluster.device=cuda", "cluster.resources.default.cpus=2", "dry_run=true"))
    served = ("refiner.serve.device=cuda", "cluster.slots=4")
    assert "cluster.slots=4: two refine tasks of 2 slots" in refused(*served)
    check(composed("cluster.device=cuda", "refiner.serve.device=cuda", "cluster.slots=1", "dry_run=true"))
