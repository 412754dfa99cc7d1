"""From a corpus artifact to a trained model: the steps `tokenize` and `pretrain` as the worker runs them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from prox_hpc.config import Corpus
from prox_hpc.corpus.files import plan_files
from prox_hpc.corpus.read import Document
from prox_hpc.corpus.write import block_path, write_block
from prox_hpc.errors import UserError
from prox_hpc.pretrain import task as pretrain
from prox_hpc.pretrain import tokenize
from prox_hpc.pretrain.tokenize import token_dtype
from prox_hpc.publish import publish_json
from prox_hpc.stop import Interrupted
from prox_hpc.study.store import write_step
from prox_hpc.task import Step, Task
from prox_hpc.train.data import Packed

TEXTS = [
    [f"The city of Arn{i} lies on the river Sol{i % 7}.\nIts mayor is Ms Vel{i % 5}.\n" for i in range(60)],
    ["", "naïve café ☕ 漢字 \x00\x07 <|endoftext|> [012]", "x" * 50_000, " \n\n\t ", "\ufffd"],
    [],
    [f"Tea number {i} costs {i * 3} crowns.\n" * 3 for i in range(40)],
]
TRAINING: dict[str, Any] = {
    "tokens": 6 * 512,
    "context": 64,
    "batch_tokens": 512,
    "micro_batch": 8,
    "warmup_steps": 1,
    "checkpoints": 2,
}


def published(task: Task, summary: dict[str, Any]) -> str:
    publish_json(task.out / "artifact.json", {"summary": summary})
    return task.step.address


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def tokenizer(store: Path) -> str:
    task = Task(Step("tokenizer", "small", {}), 0, store)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(TEXTS[0] + TEXTS[3], trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, bos_token=end).save_pretrained(task.out / "tokenizer")
    return published(task, {})


@pytest.fixture(scope="module")
def corpus(store: Path) -> str:
    task = Task(Step("generate", "mixed", {}), 0, store)
    for index, texts in enumerate(TEXTS):
        write_block(block_path(task.out, index), [Document(f"{index}-{i}", text, {}) for i, text in enumerate(texts)])
    return published(task, {})


@pytest.fixture(scope="module")
def tokens(store: Path, corpus: str, tokenizer: str) -> str:
    """Address of the corpus, tokenised by an array of three tasks."""
    step = Step("tokenize", "raw", {"tokenizer": None}, {"corpus": corpus, "tokenizer": tokenizer}, tasks=3)
    for index in range(3):
        tokenize.run(Task(step, index, store))
    task = Task(step, 0, store)
    return published(task, tokenize.seal(task))


def pretrain_step(tokens: str, tokenizer: str, **config: Any) -> Step:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 448}
    shape |= {"num_key_value_heads": 1, "max_position_embeddings": 64}
    meaning = {"shape": shape, "training": TRAINING, "seed": 3, "model": None, "tokenizer": None} | config
    return Step("pretrain", "arm", meaning, {"tokens": tokens, "tokenizer": tokenizer}, runtime={"device": "cpu"})


def test_tokens_give_back_every_document(store: Path, tokens: str, tokenizer: str) -> None:
    artifact = store / "artifacts" / tokens
    decoder = AutoTokenizer.from_pretrained(store / "artifacts" / tokenizer / "tokenizer")
    for index, texts in enumerate(TEXTS):
        about = json.loads((artifact / "blocks" / f"{index:05d}.json").read_text())
        ids = np.fromfile(artifact / "blocks" / f"{index:05d}.bin", dtype=about["dtype"])
        filled = [text for text in texts if text]
        assert len(ids) == about["tokens"]
        assert about["documents"] == len(filled)
        assert about["empty"] == len(texts) - len(filled)
        assert about["utf8_bytes"] == sum(len(text.encode()) for text in filled)
        assert decoder.decode(ids) == "".join(text + "<|endoftext|>" for text in filled)
        starts = np.fromfile(artifact / "blocks" / f"{index:05d}.idx", dtype="<i8")
        # EOS ends each document and stands nowhere else, also where a page says "<|endoftext|>"
        ends = np.flatnonzero(ids == decoder.eos_token_id) + 1
        assert [0, *ends] == [*starts, len(ids)]
        assert len(starts) == len(filled)
    stream = Packed.open(artifact / "blocks", 64, 1)
    texts = [text for block in TEXTS for text in block if text]
    assert [decoder.decode(stream.document(i)) for i in range(stream.documents)] == [t + "<|endoftext|>" for t in texts]
    with pytest.raises(IndexError):
        stream.document(len(texts))
    summary = json.loads((artifact / "artifact.json").read_text())["summary"]
    assert summary["blocks"] == 4
    assert summary["documents"] + summary["empty"] == sum(map(len, TEXTS))
    assert summary["dtype"] == "<u2"


def test_a_page_that_names_special_tokens_is_text_to_a_llama_like_tokenizer(store: Path, tmp_path: Path) -> None:
    special = ["<unk>", "<s>", "</s>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *"\u2581<>/abcs", "</"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    bpe = Tokenizer(models.BPE(vocabulary, [("<", "/")], unk_token="<unk>", byte_fallback=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bpe.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>").save_pretrained(
        tmp_path
    )
    text = "a </s> b<s>c</s></s>\n<unk>"
    corpus = Task(Step("generate", "special", {}), 0, store)
    write_block(block_path(corpus.out, 0), [Document("0", text, {})])
    step = Step("tokenize", "llama", {"tokenizer": str(tmp_path)}, {"corpus": published(corpus, {})})
    tokenize.run(Task(step, 0, store))
    ids = np.fromfile(store / "artifacts" / step.address / "blocks" / "00000.bin", dtype="<u2").tolist()
    assert bpe.decode(ids[:-1], skip_special_tokens=False) == text
    assert [token for token in ids if token < len(special)] == [2]


def test_ids_are_as_wide_as_the_vocabulary_needs() -> None:
    assert (token_dtype(65_536), token_dtype(65_537)) == ("<u2", "<u4")


def test_a_missing_block_is_told_and_made_good(store: Path, corpus: str, tokenizer: str) -> None:
    step = Step("tokenize", "again", {}, {"corpus": corpus, "tokenizer": tokenizer}, tasks=2)
    task = Task(step, 0, store)
    tokenize.run(task)
    with pytest.raises(FileNotFoundError, match="block 1 of"):
        tokenize.seal(task)
    tokenize.run(Task(step, 1, store))
    # as after a death between the tokens and their manifest
    first = task.out / "blocks" / "00000.json"
    kept = first.read_text()
    first.unlink()
    tokenize.run(task)
    assert first.read_text() == kept
    tokenize.seal(task)
    index = first.with_suffix(".idx")
    starts = np.fromfile(index, dtype="<i8")
    index.write_bytes(starts[:-1].tobytes())
    with pytest.raises(ValueError, match=r"00000\.idx: 472 bytes, the block's manifest says 480; delete the three"):
        tokenize.seal(task)
    index.write_bytes(starts[::-1].tobytes())
    with pytest.raises(ValueError, match=r"00000\.idx: its offsets are not ascending"):
        tokenize.seal(task)


def test_blocks_of_two_tokenizers_do_not_pass_for_one_corpus(store: Path, corpus: str, tokenizer: str) -> None:
    step = Step("tokenize", "mixed", {}, {"corpus": corpus, "tokenizer": tokenizer})
    task = Task(step, 0, store)
    tokenize.run(task)
    second = task.out / "blocks" / "00001.json"
    second.write_text(json.dumps(json.loads(second.read_text()) | {"vocab_size": 999}))
    with pytest.raises(ValueError, match=r"00001\.json: made with 999 tokens, one before with 400"):
        tokenize.seal(task)


def test_torchrun_starts_the_ranks_of_a_step(store: Path, tokens: str, tokenizer: str) -> None:
    halved = TRAINING | {"micro_batch": 4}
    step = replace(pretrain_step(tokens, tokenizer, seed=8, training=halved), processes=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    done = subprocess.run(
        [*command, "prox_hpc.worker", str(write_step(store, step)), "0"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    artifact = json.loads((store / "artifacts" / step.address / "artifact.json").read_text())
    assert (artifact["summary"]["world_size"], artifact["summary"]["steps"]) == (2, 6)


def test_a_corpus_without_text_is_the_users_mistake(store: Path, tokenizer: str) -> None:
    empty = Task(Step("filter", "nothing", {}), 0, store)
    write_block(block_path(empty.out, 0), [])
    step = Step("tokenize", "nothing", {}, {"corpus": published(empty, {}), "tokenizer": tokenizer})
    tokenize.run(Task(step, 0, store))
    with pytest.raises(UserError, match="no text left to train on"):
        tokenize.seal(Task(step, 0, store))


def test_tokenizers_that_cannot_be_used(store: Path, corpus: str, tmp_path: Path) -> None:
    for name in (str(tmp_path), None):
        task = Task(Step("tokenize", "bad", {"tokenizer": name}, {"corpus": corpus}), 0, store)
        with pytest.raises(UserError, match=r"trainee\.tokenizer"):
            tokenize.run(task)


def test_pretraining_an_arm(store: Path, tokens: str, tokenizer: str) -> None:
    task = Task(pretrain_step(tokens, tokenizer), 0, store)
    pretrain.run(task)
    run = pretrain.seal(task)
    corpus_tokens = json.loads((store / "artifacts" / tokens / "artifact.json").read_text())["summary"]["tokens"]
    assert (run["steps"], run["tokens"], run["seed"], run["corpus_tokens"]) == (6, 3072, 3, corpus_tokens)
    assert run["epochs"] == pytest.approx(3072 / 64 / ((corpus_tokens - 1) // 64))
    assert run["versions"]["deepspeed"]
    assert run["flops"] == 6 * run["parameters"]["minus_one_embedding"] * 3072
    assert not (task.state / "resume").exists()
    steps = sorted(path.name for path in (task.out / "checkpoints").iterdir())
    assert steps == ["step-000003", "step-000006"]
    folder = task.out / "checkpoints" / steps[1]
    assert json.loads((folder / "checkpoint.json").read_text())["tokens"] == 3072
    assert AutoModelForCausalLM.from_pretrained(folder).config.eos_token_id == 0
    assert len(AutoTokenizer.from_pretrained(folder)) == 400
    status = json.loads((task.state / "tasks" / "00000.json").read_text())
    assert (status["done"], status["total"], status["unit"]) == (6, 6, "steps")
    assert status["figures"].keys() == {"loss", "tokens_per_second"}

    losses = (task.out / "losses.jsonl").read_text()
    pretrain.run(task)  # a second start finds everything done
    assert (task.out / "losses.jsonl").read_text() == losses
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"step-000006.config\.json"):
        pretrain.seal(task)


def test_training_goes_on_from_a_given_model(store: Path, tokens: str, tokenizer: str) -> None:
    first = Task(pretrain_step(tokens, tokenizer, seed=4), 0, store)
    pretrain.run(first)
    model = str(first.out / "checkpoints" / "step-000006")
    further = Task(pretrain_step(tokens, tokenizer, seed=4, model=model), 0, store)
    pretrain.run(further)
    start = json.loads((further.out / "losses.jsonl").read_text().splitlines()[0])
    end = json.loads((first.out / "losses.jsonl").read_text().splitlines()[-1])
    assert start["loss"] == pytest.approx(end["loss"], abs=0.3)
    with pytest.raises(UserError, match="gives no causal language model"):
        pretrain.run(Task(pretrain_step(tokens, tokenizer, model=str(store)), 0, store))


def test_told_to_end_it_saves_its_state_and_goes_on(store: Path, tokens: str, tokenizer: str) -> None:
    def losses(seed_step: Step) -> list[float]:
        lines = (store / "artifacts" / seed_step.address / "losses.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    assert pretrain.GRACEFUL
    whole = pretrain_step(tokens, tokenizer, seed=5)
    pretrain.run(Task(whole, 0, store))
    cut = replace(whole, name="cut", runtime={"device": "cpu", "training": {"save_minutes": 0}})
    told = Task(cut, 0, store)
    told.stop.warn(60)
    with pytest.raises(Interrupted, match="the state after step 1 of 6 is saved"):
        pretrain.run(told)
    again = Task(cut, 0, store)
    pretrain.run(again)
    assert losses(cut) == losses(whole)
    pretrain.seal(again)


def test_an_arm_must_fill_a_batch(store: Path, tokens: str, tokenizer: str) -> None:
    held = json.loads((store / "artifacts" / tokens / "artifact.json").read_text())["summary"]["tokens"]
    more = TRAINING | {"batch_tokens": held // 512 * 512 + 512, "tokens": 10 * held}
    with pytest.raises(UserError, match=rf"training\.batch_tokens=.* holds only {held} tokens, .* enlarge the corpus"):
        pretrain.run(Task(pretrain_step(tokens, tokenizer, training=more), 0, store))


def test_vocabularies_must_fit(store: Path, tokens: str, tokenizer: str) -> None:
    small = pretrain_step(tokens, tokenizer).config["shape"] | {"vocab_size": 399}
    with pytest.raises(UserError, match=r"vocab_size=399: the tokenizer has 400 tokens"):
        pretrain.run(Task(pretrain_step(tokens, tokenizer, shape=small), 0, store))
    other = Task(Step("tokenizer", "other", {"vocab_size": 401}), 0, store)
    loaded = AutoTokenizer.from_pretrained(store / "artifacts" / tokenizer / "tokenizer")
    loaded.add_tokens(["[000]"])
    loaded.save_pretrained(other.out / "tokenizer")
    with pytest.raises(UserError, match="has 401 tokens, but the corpus was packed with one of 400"):
        pretrain.run(Task(pretrain_step(tokens, published(other, {})), 0, store))


def test_an_unreadable_file_costs_its_block_where_that_is_allowed(store: Path, tokenizer: str, tmp_path: Path) -> None:
    for name in "abc":
        lines = [json.dumps({"id": f"{name}{i}", "text": TEXTS[0][i]}) + "\n" for i in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    sources = [plan_files(Corpus("mine", "files", path=str(tmp_path), allow_failed_blocks=n)) for n in (0, 1)]
    broken = tmp_path / "b.jsonl"
    broken.write_bytes(b"\x00" * broken.stat().st_size)
    strict, lenient = (
        Task(Step("tokenize", "files", {"tokenizer": None, "source": source}, {"tokenizer": tokenizer}), 0, store)
        for source in sources
    )
    for task in (strict, lenient):
        tokenize.run(task)
        assert sorted(path.name for path in (task.out / "blocks").glob("*.bin")) == ["00000.bin", "00002.bin"]
    summary = tokenize.seal(lenient)
    assert (summary["blocks"], summary["failed_blocks"], summary["documents"]) == (2, 1, 40)
    assert Packed.open(lenient.out / "blocks", 64, 1).total_tokens == summary["tokens"]
    with pytest.raises(RuntimeError, match=r"b\.jsonl: none of its 1 lines is a JSON object"):
        tokenize.seal(strict)
