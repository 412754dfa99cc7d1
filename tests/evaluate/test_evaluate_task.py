"""Evaluation through real lm-eval: a random Llama whose right numbers are computed here from its logits."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prox_hpc.cluster.worker import manifest
from prox_hpc.config import Evaluation
from prox_hpc.errors import UserError
from prox_hpc.evaluate import catalogue, prepared
from prox_hpc.evaluate import task as evaluate
from prox_hpc.publish import publish_json, replace_json
from prox_hpc.report.collect import Run, curve
from prox_hpc.task import Step, Task

CONTEXT = 32
PLACES = ["Keld", "Ona Bay", "the old harbour of Mirrin"]
TEXTS = ["The river Ona flows to Keld.", "Zoë sells 12 €-stamps.\n" * 6, "A page of some length. " * 15]


SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def publish(store: Path, address: str) -> Path:
    folder = store / "artifacts" / address
    config = {"model": None, "shape": {"architecture": "llama", **SHAPE}}
    publish_json(folder / "artifact.json", {"config": config, "summary": {}})
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
        **SHAPE,
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
    settings = {"tasks": ["world_bpb", "world_cloze"], "batch_size": 8, "data": {}}
    inputs = {"pretrain": "pretrain/raw-0123456789ab", "heldout": f"heldout/{heldout}"}
    step = Step("evaluate", "raw", settings | config, inputs, runtime={"device": "cpu", "data": None})
    return Task(step, 0, store=store)


def finish(task: Task) -> Task:
    """Run all tasks of the step and seal it."""
    for index in range(task.step.tasks):
        evaluate.run(Task(task.step, index, store=task.store))
    publish_json(task.out / "artifact.json", manifest(task.step, task.out, evaluate.seal(task)))
    return task


@pytest.fixture(scope="module")
def done(store: Path) -> Task:
    return finish(evaluation(store))


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
    finish(task)
    scores = json.loads((task.out / "scores.json").read_text())["checkpoints"]
    assert scores[0]["scores"]["world_bpb"]["bits_per_byte"] == 9.75
    assert scores[1]["scores"]["world_cloze"].keys() >= {"acc", "acc_norm"}


def test_an_array_that_begins_while_training_runs_has_the_products_of_one_task(store: Path, done: Task) -> None:
    step = replace(done.step, tasks=3, runtime={**done.step.runtime, "early": "pretrain"})
    first, second, last = tasks = [Task(step, index, store=store.parent / "array") for index in range(3)]
    task, at = second, second.step.inputs["pretrain"]
    trained = shutil.copytree(store / "artifacts" / at, task.store / "artifacts" / at)
    sealed = (trained / "artifact.json").rename(trained.parent / "later.json")
    about = (trained / "checkpoints/step-000010/checkpoint.json").rename(trained.parent / "exported.json")
    training = {"tokens": 20 * 512, "batch_tokens": 512, "checkpoints": 2}
    config = json.loads(sealed.read_text())["config"] | {"training": training}
    publish_json(task.store / "steps" / at / "step.json", Step("pretrain", "raw", config).to_json())
    assert not any(evaluate.ready(each) for each in tasks), "held-out data is missing"
    shutil.copytree(store / "artifacts/heldout", task.store / "artifacts/heldout")
    assert [evaluate.ready(each) for each in tasks] == [True, False, False], "the first has no checkpoint to score"
    about.rename(trained / "checkpoints/step-000010/checkpoint.json")
    assert [evaluate.ready(each) for each in tasks] == [True, True, False], "the last one is the end of training's"
    with pytest.raises(FileNotFoundError, match="'pretrain' is not published; run its step first"):
        evaluate.run(last)
    evaluate.run(first)
    evaluate.run(second)
    assert [path.name for path in (task.state / "checkpoints").iterdir()] == ["step-000010.json"]
    sealed.rename(trained / "artifact.json")
    with pytest.raises(RuntimeError, match="step-000020 are not scored; launch again"):
        evaluate.seal(task)
    assert not (task.out / "scores.json").exists()
    finish(task)
    assert task.step.address == done.step.address
    assert json.loads((task.out / "scores.json").read_text()) == json.loads((done.out / "scores.json").read_text())
    assert pq.read_table(task.out / "items.parquet") == pq.read_table(done.out / "items.parquet")


def test_sealing_needs_no_model_library(done: Task) -> None:
    code = (
        "import sys; from pathlib import Path; from prox_hpc.cluster.worker import load; "
        "from prox_hpc.evaluate.task import seal; task = load(Path(sys.argv[1]), 0); "
        "print(seal(task)['checkpoints'], *({'torch', 'lm_eval', 'datasets'} & {*sys.modules}))"
    )
    replace_json(done.state / "step.json", done.step.to_json())
    shown = subprocess.run(
        [sys.executable, "-c", code, done.state / "step.json"], check=True, capture_output=True, text=True
    )
    assert shown.stdout == "2\n"


def test_a_task_without_its_data_is_skipped_and_named(store: Path) -> None:
    task = finish(evaluation(store, heldout="files-000000000002"))
    scores = json.loads((task.out / "scores.json").read_text())
    assert scores["skipped"] == {"world_cloze": "the held-out data has no cloze.jsonl"}
    assert all(entry["scores"].keys() == {"world_bpb"} for entry in scores["checkpoints"])
    with pytest.raises(UserError, match="none can run"):
        evaluate.run(evaluation(store, heldout="files-000000000002", tasks=["world_cloze"]))


def test_lm_evals_own_tasks_are_found_by_name_and_unknown_ones_refused(store: Path, tmp_path: Path) -> None:
    from prox_hpc.evaluate.harness import Data, task_manager

    data = Data(store / "artifacts/heldout/world-000000000001", None)
    assert task_manager(["world_bpb"], data, tmp_path).all_tasks == ["world_bpb"]
    with pytest.raises(UserError, match=r"knows no task \['sciqq'\]"):  # and so knows the other two
        task_manager(["world_bpb", "sciq", "sciqq"], data, tmp_path)
    with pytest.raises(UserError, match="knows no single task mmlu"):
        task_manager(["mmlu@2"], data, tmp_path)


def test_a_checkpoint_of_another_shape_is_refused(store: Path, tmp_path: Path) -> None:
    task = replace(evaluation(store), store=tmp_path)
    shutil.copytree(store / "artifacts/heldout", tmp_path / "artifacts/heldout")
    pretrain = shutil.copytree(store / "artifacts/pretrain", tmp_path / "artifacts/pretrain") / "raw-0123456789ab"
    other = {"architecture": "llama", **SHAPE, "hidden_size": 64, "num_hidden_layers": 4}
    replace_json(pretrain / "artifact.json", {"config": {"model": None, "shape": other}})
    told = (
        r"step-000010: is a checkpoint of another configuration \(hidden_size=32, not 64; num_hidden_layers=2, not 4\)"
    )
    with pytest.raises(UserError, match=told):
        evaluate.run(task)
    replace_json(pretrain / "artifact.json", {"config": {"model": "/some/model", "shape": other}})
    evaluate.check_shape(pretrain / "checkpoints/step-000010", {"model": "/some/model", "shape": other})


PAPER = ["prox_ten", *catalogue.members("prox_ten"), "arc_easy@2", "winogrande@0"]


@pytest.fixture(scope="module")
def paper(store: Path, fetched: Path) -> Task:
    """The ten tasks, and two of lm-eval's own, from a prepared folder and without held-out text."""
    bare = evaluation(store)
    said = Evaluation(name="paper", kind="none", tasks=PAPER, metric="prox_ten", data=str(fetched))
    config = {"tasks": PAPER, "batch_size": 16, "data": prepared.identify(said)}
    inputs = {"pretrain": bare.step.inputs["pretrain"]}
    step = replace(bare.step, config=config, inputs=inputs, runtime={"device": "cpu", "data": str(fetched)})
    return finish(replace(bare, step=step))


def test_the_papers_ten_columns_and_their_mean(paper: Task) -> None:
    scores = json.loads((paper.out / "scores.json").read_text())
    assert scores["skipped"] == {}
    assert scores["groups"].keys() == {"prox_mmlu", "prox_ten"}
    for entry in scores["checkpoints"]:
        found = entry["scores"]
        assert set(found) == set(PAPER)
        assert len(entry["subsets"]) == 57
        mmlu = [values["acc_norm"] for values in entry["subsets"].values()]
        assert found["prox_mmlu"]["acc_norm"] == pytest.approx(sum(mmlu) / 57)
        columns = [found[name]["acc_norm"] for name in catalogue.members("prox_ten")]
        assert found["prox_ten"]["acc_norm"] == pytest.approx(sum(columns) / 10)


def test_items_are_kept_of_every_task_and_subset(paper: Task) -> None:
    rows = pq.read_table(paper.out / "items.parquet").to_pylist()
    assert {row["task"] for row in rows} == set(catalogue.leaves(PAPER))
    assert sum(row["task"] == "prox_arc_easy" and row["step"] == 20 for row in rows) == 3
    assert all(row["correct_norm"] in (0.0, 1.0) for row in rows if row["task"] != "winogrande@0")


def test_the_reports_curve_of_a_group_is_made_of_its_items(paper: Task) -> None:
    entries = json.loads((paper.out / "scores.json").read_text())["checkpoints"]
    for name, items in (("prox_ten", 57 + 13), ("prox_mmlu", 57), ("prox_sciq", 2)):
        line = curve([Run("raw", 1, None, paper.out)], name, "acc_norm")
        assert line is not None
        assert line.numerator.shape == (1, 2, items)
        assert line.scores()[0] == pytest.approx([entry["scores"][name]["acc_norm"] for entry in entries])


def test_data_that_changed_since_the_launch_is_refused(paper: Task) -> None:
    changed = {"prox_sciq": {"test": "0" * 32}}
    step = replace(paper.step, config=paper.step.config | {"data": changed})
    with pytest.raises(UserError, match="was fetched again since the study was launched"):
        evaluate.run(replace(paper, step=step))


def test_checkpoints_are_pruned_once_all_are_scored(store: Path, done: Task, tmp_path: Path) -> None:
    shutil.copytree(store / "artifacts" / "pretrain", tmp_path / "artifacts" / "pretrain")
    shutil.copytree(store / "artifacts" / "heldout", tmp_path / "artifacts" / "heldout")
    task = evaluation(tmp_path)
    shutil.copytree(done.state, task.state)
    task = Task(replace(task.step, runtime={**task.step.runtime, "keep_checkpoints": "last"}), 0, store=tmp_path)
    evaluate.seal(task)
    scores = [json.loads((one.out / "scores.json").read_text()) for one in (task, done)]
    assert scores[0] == scores[1]
    first, last = sorted((tmp_path / "artifacts/pretrain").glob("*/checkpoints/step-*"))
    assert (first / "checkpoint.json").exists()
    assert [any(folder.glob("*.safetensors")) for folder in (first, last)] == [False, True]
    with pytest.raises(UserError, match=r"step-000010: its weights are gone .*evaluation.keep_checkpoints.* delete"):
        evaluate.run(evaluation(tmp_path, tasks=["world_bpb"]))
