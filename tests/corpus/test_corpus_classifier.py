"""A classifier learnt from verdicts, its scores, and the arm of the documents that it scores best."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from prox_hpc.config import Corpus
from prox_hpc.corpus import classifier, classify, generate
from prox_hpc.corpus.classifier import Classifier, train
from prox_hpc.corpus.files import plan_files
from prox_hpc.corpus.read import Document, Source
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_json
from prox_hpc.refine import execute
from prox_hpc.task import Step, Task

WEB = Step("generate", "web", {"documents": 400, "blocks": 3, "seed": 5, "sites": "test"}, tasks=2)
SEED = Step("generate", "seed", {"documents": 600, "blocks": 1, "seed": 7, "sites": "train"})
GOLD = Step("execute", "gold", {"arm": {"kind": "gold"}}, {"corpus": WEB.address})
RANDOM = Step("execute", "random", {"arm": {"kind": "random"}}, {"corpus": WEB.address, "like": GOLD.address})
LEARN = {"examples": 600, "seed": 5}


def made(store: Path, module: ModuleType, step: Step) -> dict[str, Any]:
    """All tasks of a step and its seal; -> the summary."""
    for index in range(step.tasks):
        module.run(Task(step, index, store))
    task = Task(step, 0, store)
    summary: dict[str, Any] = module.seal(task)
    publish_json(task.out / "artifact.json", {"summary": summary})
    return summary


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A web, a seed corpus of other sites, and the arms `gold` and `random` of the web."""
    store = tmp_path_factory.mktemp("store")
    for module, step in ((generate, WEB), (generate, SEED), (execute, GOLD), (execute, RANDOM)):
        made(store, module, step)
    return store


def documents(store: Path, step: Step) -> list[Document]:
    source = Source.of_artifact(Task(step, 0, store).out)
    return [document for block in source.blocks for document in source.read(block)]


def precision(store: Path, arm: Step) -> float:
    """The share of an arm's documents that are good ones."""
    good = {document.id for document in documents(store, WEB) if not document.gold_drop}
    kept = [document.id for document in documents(store, arm)]
    return sum(identity in good for identity in kept) / len(kept)


def arm_of(store: Path, learn: Step) -> tuple[Step, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The arm of a classifier: -> its step, and what came of learning, of scoring and of the arm."""
    inputs = {"corpus": WEB.address, "classifier": learn.address, "like": GOLD.address}
    scores = Step("classify", learn.name, {}, inputs, tasks=2)
    arm_inputs = {"corpus": WEB.address, "scores": scores.address}
    arm = Step("execute", learn.name, {"arm": {"kind": "classifier"}}, arm_inputs, tasks=2)
    learnt = made(store, classifier, learn)
    return arm, learnt, made(store, classify, scores), made(store, execute, arm)


@pytest.mark.parametrize("gold", [True, False], ids=["from gold", "from an arm"])
def test_an_arm_keeps_as_many_as_the_one_it_is_like_and_better_ones_than_by_lot(store: Path, gold: bool) -> None:
    inputs = {"corpus": SEED.address} if gold else {"corpus": WEB.address, "like": GOLD.address}
    arm, learnt, scored, kept = arm_of(store, Step("classifier", f"gold-{gold}", LEARN, inputs))
    wanted = json.loads((Task(GOLD, 0, store).out / "artifact.json").read_text())["summary"]["documents_out"]
    assert scored["wanted"] == wanted
    assert wanted <= scored["kept"] <= wanted + 4  # 1 % of the corpus: only ties can be more
    assert (kept["documents_in"], kept["documents_out"]) == (400, scored["kept"])
    assert kept["reasons"] == {"low score": 400 - scored["kept"]}
    assert learnt["auc"] > 0.8
    assert precision(store, arm) > precision(store, RANDOM) + 0.1
    whole = {document.id: document.text for document in documents(store, WEB)}
    assert all(whole[document.id] == document.text for document in documents(store, arm))


def test_training_repeats_itself_and_the_model_is_plain_arrays(store: Path, tmp_path: Path) -> None:
    seeds = documents(store, SEED)
    texts, kept = [document.text for document in seeds], [not document.gold_drop for document in seeds]
    first, second = (train(texts, kept, 1)[0] for _ in range(2))
    assert np.array_equal(first.weights, second.weights)
    first.save(tmp_path / classifier.MODEL)
    assert np.array_equal(Classifier.load(tmp_path).scores(texts), first.scores(texts))
    one_by_one = np.concatenate([first.scores([text]) for text in texts[:20]])
    assert np.array_equal(one_by_one, first.scores(texts)[:20])  # so blocks may be cut anywhere


def test_verdicts_of_one_kind_teach_nothing(store: Path) -> None:
    whole = Step("filter", "whole", {})
    publish_json(Task(whole, 0, store).out / "artifact.json", {"summary": {"documents_in": 1, "documents_out": 1}})
    everything = Step("execute", "all", {"arm": {"kind": "random"}}, {"corpus": WEB.address, "like": whole.address})
    made(store, execute, everything)
    learn = Step("classifier", "cheap", LEARN, {"corpus": WEB.address, "like": everything.address})
    with pytest.raises(UserError, match="400 of the 400 documents it would learn from were kept"):
        classifier.run(Task(learn, 0, store))


def test_scores_of_another_corpus_are_refused(store: Path) -> None:
    learn = Step("classifier", "gold-True", LEARN, {"corpus": SEED.address})
    made(store, classifier, learn)
    other = Step("classify", "other", {}, {"corpus": SEED.address, "classifier": learn.address, "like": GOLD.address})
    made(store, classify, other)
    arm = Step("execute", "wrong", {"arm": {"kind": "classifier"}}, {"corpus": WEB.address, "scores": other.address})
    with pytest.raises(RuntimeError, match=r"00000\.parquet: its scores are not of the documents of"):
        execute.run(Task(arm, 0, store))


def test_a_file_that_cannot_be_read_costs_its_block_in_the_scores_and_in_the_arm(store: Path, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": f"Page {name} is about the old town."}) + "\n")
    source = plan_files(Corpus("pages", "files", path=str(tmp_path), allow_failed_blocks=1))
    (tmp_path / "b.jsonl").write_text("{}\n{}\n")
    learn = Step("classifier", "gold-True", LEARN, {"corpus": SEED.address})
    made(store, classifier, learn)
    like = Step("filter", "like", {})
    publish_json(Task(like, 0, store).out / "artifact.json", {"summary": {"documents_in": 3, "documents_out": 1}})
    scores = Step("classify", "files", {"source": source}, {"classifier": learn.address, "like": like.address})
    summary = made(store, classify, scores)
    assert {key: summary[key] for key in ("documents", "failed_blocks", "wanted", "kept")} == {
        "documents": 2, "failed_blocks": 1, "wanted": 1, "kept": 1,
    }  # fmt: skip
    arm = Step("execute", "files", {"source": source, "arm": {"kind": "classifier"}}, {"scores": scores.address})
    kept = made(store, execute, arm)
    assert (kept["failed_blocks"], kept["documents_in"], kept["documents_out"]) == (1, 2, 1)
