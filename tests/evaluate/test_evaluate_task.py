"""Evaluation through real lm-eval: a random Llama whose right numbers are computed here from its logits."""

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prox_hpc.errors import UserError
from prox_hpc.evaluate import task as evaluate
from prox_hpc.publish import publish_json
from prox_hpc.task import Step, Task

CONTEXT = 32
PLACES = ["Keld", "Ona Bay", "the old harbour of Mirrin"]
TEXTS = ["The river Ona flows to Keld.", "Zoë sells 12 €-stamps.\n" * 6, "A page of some length. " * 15]


def publish(store: Path, address: str) -> Path:
    folder = store / "artifacts" / address
    publish_json(folder / "artifact.json", {"summary": {}})
    return folder


def save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrain artifact of two random checkpoints and two heldout artifacts, with and without cloze items."""
    store = tmp_path_factory.mktemp("store")
    pretrain = publish(store, "pretrain/raw-0123456789ab")
    shape = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,  # far from uniform, so that wrong alignment of logits and targets shows
    )
    for step in (10, 20):
        torch.manual_seed(step)
        folder = pretrain / "checkpoints" / f"step-{step:06d}"
        LlamaForCausalLM(shape).save_pretrained(folder)
        save_tokenizer(folder)
        publish_json(folder / "checkpoint.json", {"step": step, "tokens": 100 * step, "flops": 1e6 * step})
    full, bare = publish(store, "heldout/world-000000000001"), publish(store, "heldout/files-000000000002")
    cloze = [{"query": f"River {n} flows to", "choices": PLACES, "gold": n % 3} for n in range(24)]
    for folder in (full, bare):
        (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (full / "cloze.jsonl").write_text("".join(json.dumps(item) + "\n" for item in cloze))
    return store


def evaluation(store: Path, heldout: str = "world-000000000001", **config: object) -> Task:
    settings = {"tasks": ["world_bpb", "world_cloze"], "batch_size": 8}
    inputs = {"pretrain": "pretrain/raw-0123456789ab", "heldout": f"heldout/{heldout}"}
    step = Step("evaluate", "raw", settings | config, inputs, runtime={"device": "cpu"})
    return Task(step, 0, store=store)


@pytest.fixture(scope="module")
def done(store: Path) -> Task:
    task = evaluation(store)
    evaluate.run(task)
    publish_json(task.out / "artifact.json", {"summary": evaluate.seal(task)})
    return task


def load(store: Path, step: int):
    folder = store / f"artifacts/pretrain/raw-0123456789ab/checkpoints/step-{step:06d}"
    return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def bits_by_hand(store: Path, step: int, text: str) -> float:
    """-log2 p(text), each token conditioned on at most CONTEXT tokens of its own window, the first on EOS."""
    tokenizer, model = load(store, step)
    ids = tokenizer.encode(text, add_special_tokens=False)
    nats = 0.0
    for start in range(0, len(ids), CONTEXT):
        window = ids[start : start + CONTEXT]
        # a last, shorter window keeps its full context: lm-eval moves it back over tokens already counted
        context = ([tokenizer.eos_token_id, *ids])[max(0, start + len(window) - CONTEXT) : start + len(window)]
        with torch.no_grad():
            logits = model(torch.tensor([context])).logits[0].log_softmax(-1)
        nats -= sum(logits[len(context) - len(window) + i, token].item() for i, token in enumerate(window))
    return nats / math.log(2)


def test_bits_per_byte_is_the_models_own(store: Path, done: Task) -> None:
    scores = json.loads((done.out / "scores.json").read_text())["checkpoints"]
    assert [(entry["step"], entry["tokens"], entry["flops"]) for entry in scores] == [(10, 1000, 1e7), (20, 2000, 2e7)]
    for entry in scores:
        bits = [bits_by_hand(store, entry["step"], text) for text in TEXTS]
        size = sum(len(text.encode()) for text in TEXTS)
        assert entry["scores"]["world_bpb"]["bits_per_byte"] == pytest.approx(sum(bits) / size, abs=1e-3)
        assert entry["scores"]["world_bpb"]["byte_perplexity"] == pytest.approx(2 ** (sum(bits) / size), abs=1e-2)
        assert entry["scores"]["world_bpb"]["bits_per_byte_stderr"] > 0


def test_items_carry_bits_and_bytes_of_each_text(store: Path, done: Task) -> None:
    rows = pq.read_table(done.out / "items.parquet").to_pylist()
    rolling = [row for row in rows if row["task"] == "world_bpb" and row["step"] == 20]
    assert [row["bytes"] for row in rolling] == [len(text.encode()) for text in TEXTS]
    assert [row["bits"] for row in rolling] == pytest.approx([bits_by_hand(store, 20, t) for t in TEXTS], rel=1e-3)


def test_cloze_answers_are_the_likeliest_choices(store: Path, done: Task) -> None:
    tokenizer, model = load(store, 20)
    rows = pq.read_table(done.out / "items.parquet").to_pylist()
    got = [row for row in rows if row["task"] == "world_cloze" and row["step"] == 20]
    for row in got:
        query, gold = f"River {row['item']} flows to", row["item"] % 3
        likelihoods = []
        for choice in PLACES:
            ids = tokenizer.encode(f"{query} {choice}", add_special_tokens=False)
            asked = len(tokenizer.encode(query, add_special_tokens=False))
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            likelihoods.append(sum(logits[i - 1, ids[i]].item() for i in range(asked, len(ids))))
        normed = [value / len(choice) for value, choice in zip(likelihoods, PLACES, strict=True)]
        assert row["correct"] == float(likelihoods.index(max(likelihoods)) == gold)
        assert row["correct_norm"] == float(normed.index(max(normed)) == gold)
    final = json.loads((done.out / "scores.json").read_text())["checkpoints"][-1]["scores"]["world_cloze"]
    assert len(got) == 24
    assert final["acc"] == pytest.approx(sum(row["correct"] for row in got) / 24)
    assert final["acc_norm"] == pytest.approx(sum(row["correct_norm"] for row in got) / 24)
    assert final["acc_stderr"] > 0


def test_seal_sums_up_and_progress_ends_complete(done: Task) -> None:
    summary = json.loads((done.out / "artifact.json").read_text())["summary"]
    assert summary["checkpoints"] == 2
    assert summary["items"] == 2 * (24 + 3)
    assert summary["skipped"] == {}
    assert summary["lm_eval"].startswith("0.4")
    assert summary["forward_tokens"] > 24 * 3 * 5
    status = json.loads((done.state / "tasks" / "00000.json").read_text())
    assert (status["done"], status["total"], status["unit"]) == (2, 2, "checkpoints")


def test_a_restarted_task_scores_only_what_is_missing(store: Path) -> None:
    task = evaluation(store, batch_size=4)
    first = store / "artifacts/pretrain/raw-0123456789ab/checkpoints/step-000010"
    remembered = {"step": 10, "tokens": 1000, "flops": 1.0, "scores": {"world_bpb": {"bits_per_byte": 9.75}}}
    publish_json(task.state / "checkpoints" / f"{first.name}.json", remembered | {"items": {}, "forward_tokens": 0})
    evaluate.run(task)
    scores = json.loads((task.out / "scores.json").read_text())["checkpoints"]
    assert scores[0]["scores"]["world_bpb"]["bits_per_byte"] == 9.75
    assert scores[1]["scores"]["world_cloze"].keys() >= {"acc", "acc_norm"}
    before = (task.out / "scores.json").stat().st_mtime_ns
    evaluate.run(task)
    assert (task.out / "scores.json").stat().st_mtime_ns == before


def test_a_task_without_its_data_is_skipped_and_named(store: Path) -> None:
    task = evaluation(store, heldout="files-000000000002")
    evaluate.run(task)
    scores = json.loads((task.out / "scores.json").read_text())
    assert scores["skipped"] == {"world_cloze": "the held-out data has no cloze.jsonl"}
    assert all(entry["scores"].keys() == {"world_bpb"} for entry in scores["checkpoints"])
    with pytest.raises(UserError, match="none can run"):
        evaluate.run(evaluation(store, heldout="files-000000000002", tasks=["world_cloze"]))


def test_lm_evals_own_tasks_are_found_by_name_and_unknown_ones_refused(store: Path, tmp_path: Path) -> None:
    heldout = store / "artifacts/heldout/world-000000000001"
    with evaluate.task_manager(["world_bpb"], heldout, tmp_path) as manager:
        assert manager.all_tasks == ["world_bpb"]
    refused = pytest.raises(UserError, match=r"knows no task \['sciqq'\]")  # and so knows the other two
    with refused, evaluate.task_manager(["world_bpb", "sciq", "sciqq"], heldout, tmp_path):
        pass


def test_an_unsealed_checkpoint_fails_the_seal(store: Path, done: Task, tmp_path: Path) -> None:
    copy = evaluation(store, batch_size=2)
    scores = json.loads((done.out / "scores.json").read_text())
    publish_json(copy.out / "scores.json", scores | {"checkpoints": scores["checkpoints"][:1]})
    with pytest.raises(RuntimeError, match=r"\[20\] are not scored"):
        evaluate.seal(copy)
