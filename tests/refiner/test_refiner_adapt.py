"""The making of a refiner from generated pages to a model folder, each step run as a worker would run it."""

import json
from dataclasses import asdict
from itertools import count

import numpy as np
import pytest

from prox_hpc.config import Shape, Training
from prox_hpc.corpus.read import Document
from prox_hpc.corpus.web import make_page
from prox_hpc.corpus.write import write_block
from prox_hpc.programs import parse, removed_lines
from prox_hpc.publish import publish_json
from prox_hpc.refiner import adapt, labels, tokenizer
from prox_hpc.task import Step, Task

PAGES = [make_page("train", 9003, 0, row) for row in range(24)]
SHAPE = Shape(hidden_size=32, intermediate_size=64, num_hidden_layers=1, vocab_size=1200, max_position_embeddings=1024)
TRAINING = Training(
    tokens=20 * 4096, context=1024, batch_tokens=4096, micro_batch=2, learning_rate=1e-2, warmup_steps=2
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def done(store, kind, module, config, inputs, **more):
    """Run and seal a step; returns its task."""
    task = Task(Step(kind, "t", config, inputs, **more), 0, store)
    module.run(task)
    publish_json(task.out / "artifact.json", {"summary": module.seal(task) if hasattr(module, "seal") else {}})
    return task


@pytest.fixture(scope="module")
def corpus(store):
    step = Step("generate", "t", {})
    out = store / "artifacts" / step.address
    documents = (Document(str(i), p.text, {}, p.drop, p.program) for i, p in enumerate(PAGES))
    write_block(out / "blocks" / "00000.parquet", documents, gold=True)
    publish_json(out / "artifact.json", {"summary": {}})
    return step.address


@pytest.fixture(scope="module")
def vocabulary(store, corpus):
    return done(store, "tokenizer", tokenizer, {"vocab_size": SHAPE.vocab_size}, {"corpus": corpus})


@pytest.fixture(scope="module")
def labelled(store, corpus, vocabulary):
    config = {
        "prompt": "tags",
        "max_chunk_tokens": 700,
        "max_doc_tokens": 300,
        "doc_answers": ["keep_doc()", "drop_doc()"],
    }
    return done(store, "labels", labels, config, {"corpus": corpus, "tokenizer": vocabulary.step.address})


@pytest.fixture(scope="module")
def refiner(store, vocabulary, labelled):
    config = {"prompt": "tags", "shape": asdict(SHAPE), "training": asdict(TRAINING), "lm_weight": 0.1, "seed": 1}
    inputs = {"labels": labelled.step.address, "tokenizer": vocabulary.step.address}
    return done(store, "adapt", adapt, config, inputs, runtime={"device": "cpu"})


def test_labels_of_a_corpus_are_counted(labelled):
    summary = json.loads((labelled.out / "artifact.json").read_text())["summary"]
    good = sum(not page.drop for page in PAGES)
    assert (summary["documents"], summary["drop"], summary["keep"]) == (len(PAGES), len(PAGES) - good, good)
    examples = labels.read(labelled.out)
    assert summary["examples"] == len(examples) == summary["doc"] + summary["chunk"]
    assert labelled.out.joinpath("labels.parquet").stat().st_mtime_ns == _again(labels, labelled, "labels.parquet")


def _again(module, task, name):
    module.run(task)
    return task.out.joinpath(name).stat().st_mtime_ns


def test_the_loss_falls(refiner):
    losses = [json.loads(line) for line in (refiner.out / "losses.jsonl").read_text().splitlines()]
    assert len(losses) == 20
    assert losses[-1]["answer_loss"] < 0.7 * losses[0]["answer_loss"]
    about = json.loads((refiner.out / "refiner.json").read_text())
    assert about["program_version"] == "v1"
    assert about["too_long"] == 0
    assert about["parameters"]["total"] == 2 * 1200 * 32 + 4 * 32 * 32 + 3 * 32 * 64 + 3 * 32


def test_the_model_folder_is_complete_and_answers(refiner):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(refiner.out / "model", dtype=torch.float32)
    own = AutoTokenizer.from_pretrained(refiner.out / "model")
    assert model.config.vocab_size >= len(own)
    assert model.config.eos_token_id == own.eos_token_id == 0
    ids = own("<doc>\nHome | About\n</doc>\n", return_tensors="pt").input_ids
    # two dozen pages teach no more than that a call follows
    first = int(model(input_ids=ids).logits[0, -1].argmax())
    assert own.decode([first]) in tokenizer.CALL_TOKENS


def test_a_finished_step_is_not_trained_again(refiner):
    before = (refiner.out / "model" / "model.safetensors").stat().st_mtime_ns
    adapt.run(refiner)
    assert (refiner.out / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_the_label_at_a_lines_end_says_what_the_program_says_of_it(labelled, vocabulary):
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(vocabulary.out / "tokenizer")
    ends = adapt.LineEnds(own, "tags")
    checked = 0
    for example in labels.read(labelled.out):
        prompt = np.array(own(example.prompt)["input_ids"])
        positions, targets = ends.labels(example, prompt)
        assert len(positions) == example.lines
        shown = [own.decode(part) for part in np.split(prompt, positions + 1)]
        said = own.convert_ids_to_tokens(targets)
        removed = removed_lines(parse(example.program, "chunk"), example.lines, example.first_line)
        for number, line, token in zip(count(example.first_line), shown, said, strict=False):
            assert line.removeprefix("<chunk>\n").startswith(f"[{number:03d}]")
            starts, over = (
                number in removed and number - 1 not in removed,
                number not in removed and number - 1 in removed,
            )
            inside = "remove_lines(" if number in removed else "keep_chunk()"
            assert token == (str(number) if starts else str(number - 1) if over else inside)
            checked += 1
    assert checked > 200


def test_marks_and_numbers_start_out_alike(vocabulary):
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(vocabulary.out / "tokenizer")
    model = adapt.start_model(asdict(SHAPE), own, seed=1)
    ids = own.convert_tokens_to_ids
    marks = model.get_input_embeddings().weight[ids([f"[{i:03d}]" for i in range(300)])]
    numbers = model.get_output_embeddings().weight[ids([str(i) for i in range(300)])]
    nearest = (marks @ numbers.T).argmax(dim=1).tolist()
    assert sum(line == number for line, number in enumerate(nearest)) > 270


def test_blurring_changes_words_only_and_none_that_the_answer_copies(vocabulary):
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(vocabulary.out / "tokenizer")
    blur = adapt.Blur(own, np.random.default_rng(1))
    changed = total = 0
    for page in PAGES:
        prompt = own(f"<doc>\n{page.text}\n</doc>\n")["input_ids"]
        answer = own(f'normalize("{page.lines[-1].raw}")')["input_ids"]
        blurred = blur(prompt, answer)
        assert len(blurred) == len(prompt)
        for before, after in zip(prompt, blurred, strict=True):
            if before != after:
                assert before not in answer
                assert own.decode([before]).strip().isalpha()
                assert own.decode([after]).strip().isalpha()
        changed += sum(before != after for before, after in zip(prompt, blurred, strict=True))
        total += sum(own.decode([token]).strip().isalpha() for token in prompt)
    assert 0.05 < changed / total < 0.30
