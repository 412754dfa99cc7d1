"""A tokenizer that does not fit the model is refused before anything is queued, and so is a world of the wrong size."""

import json
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.config import Shape, Trainee
from prox_hpc.errors import UserError
from prox_hpc.launch import check
from prox_hpc.refiner.tokenizer import save, train
from prox_hpc.study.vocabulary import check_vocabulary, vocabulary
from tests.test_conf import composed


def folder(path: Path, tokens: Any, rows: int | None = None) -> str:
    """A folder with a tokenizer of these tokens (a count, or what its `vocab` is to be) and a model's config."""
    path.mkdir()
    vocab = {f"t{number}": number for number in range(tokens)} if isinstance(tokens, int) else tokens
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": []}))
    if rows is not None:
        (path / "config.json").write_text(json.dumps({"vocab_size": rows}))
    return str(path)


def test_the_study_s_own_tokenizer_is_read_with_its_added_tokens(tmp_path: Path) -> None:
    tokenizer = train(["some words and some more words"] * 50, 900)
    save(tokenizer, tmp_path)
    assert vocabulary(str(tmp_path)) == tokenizer.get_vocab()


def test_a_model_too_small_for_its_tokenizer(tmp_path: Path) -> None:
    big = folder(tmp_path / "big", 300)
    with pytest.raises(UserError, match=r"tokenizer=.*big: has 300 tokens, trainee\.shape\.vocab_size gives 256; set"):
        check_vocabulary(Trainee(name="t", tokenizer=big, shape=Shape(vocab_size=256)))
    check_vocabulary(Trainee(name="t", tokenizer=big, shape=Shape(vocab_size=300)))
    small = folder(tmp_path / "small", 200, rows=256)
    with pytest.raises(UserError, match=r"has 300 tokens, trainee\.model=.*small has 256; take its own tokenizer"):
        check_vocabulary(Trainee(name="t", model=small, tokenizer=big))


def test_a_tokenizer_the_model_was_not_trained_with(tmp_path: Path) -> None:
    model = folder(tmp_path / "model", {"a": 0, "b": 1, "c": 2}, rows=4)
    other = folder(tmp_path / "other", {"a": 0, "c": 1, "b": 2})
    with pytest.raises(UserError, match=r"is not that of trainee\.model=.*, 2 of whose 3 tokens .* set trainee\.tok"):
        check_vocabulary(Trainee(name="t", model=model, tokenizer=other))
    more = folder(tmp_path / "more", {"a": 0, "b": 1, "c": 2, "d": 3})
    for fine in (model, more, "some/hub-name"):
        check_vocabulary(Trainee(name="t", model=model, tokenizer=fine))


def test_other_kinds_of_tokenizers_and_files_that_are_none(tmp_path: Path) -> None:
    unigram = folder(tmp_path / "unigram", [["<unk>", 0.0], ["a", -1.5]])
    assert vocabulary(unigram) == {"<unk>": 0, "a": 1}
    (tmp_path / "sentencepiece").mkdir()
    assert vocabulary(str(tmp_path / "sentencepiece")) == {}
    for text, told in (("{", "is no JSON"), ("{}", ""), ('{"model": {}}', "is no tokenizer")):
        (tmp_path / "unigram" / "tokenizer.json").write_text(text)
        if told:
            with pytest.raises(UserError, match=told):
                vocabulary(unigram)


def test_launch_checks_the_tokenizer_and_the_ranks(tmp_path: Path) -> None:
    big = folder(tmp_path / "big", 3000)
    with pytest.raises(UserError, match=r"has 3000 tokens, trainee\.shape\.vocab_size gives 2048; set it to 3000"):
        check(composed(f"trainee.tokenizer={big}", "dry_run=true"))
    ranks = (
        "cluster=slurm", "cluster.resources.pretrain.nodes=3", "cluster.resources.pretrain.processes=2",
        "cluster.resources.pretrain.gpus=2",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"trainee\.training\.batch_tokens=2048 must be a multiple of .* \* 6"):
        check(composed(*ranks, "dry_run=true"))
    missing = ("evaluation=files", f"evaluation.path={tmp_path}/none.jsonl", "dry_run=true")
    with pytest.raises(UserError, match=r"evaluation\.path=.*none\.jsonl: no such file or folder; check the path"):
        check(composed(*missing))
