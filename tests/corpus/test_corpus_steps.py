"""The steps generate, heldout and filter, run by hand as a worker would."""

import hashlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from prox_hpc.config import Corpus
from prox_hpc.corpus import filters, generate, heldout
from prox_hpc.corpus.files import plan_files
from prox_hpc.corpus.read import Source
from prox_hpc.corpus.write import block_path
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_json
from prox_hpc.task import Step, Task

WEB = {"documents": 203, "blocks": 4, "seed": 5, "sites": "test"}


def run_step(store: Path, module: ModuleType, step: Step) -> tuple[Path, dict[str, Any]]:
    """All tasks of a step, last one first, and its seal; returns the artifact and the summary."""
    for index in reversed(range(step.tasks)):
        module.run(Task(step, index, store=store))
    task = Task(step, 0, store=store)
    summary = module.seal(task)
    publish_json(task.out / "artifact.json", {"summary": summary})
    return task.out, summary


def digests(artifact: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((artifact / "blocks").iterdir())}


def texts(artifact: Path) -> list[str]:
    source = Source.of_artifact(artifact)
    return [document.text for block in source.blocks for document in source.read(block)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    run_step(store, generate, Step("generate", "web", WEB, tasks=3))
    return store


def web(store: Path) -> Path:
    return Task(Step("generate", "web", WEB), 0, store=store).out


def test_generated_corpus_is_the_same_for_any_number_of_tasks(store: Path, tmp_path: Path) -> None:
    other, summary = run_step(tmp_path, generate, Step("generate", "web", WEB, tasks=1))
    assert digests(other) == digests(web(store))
    assert len(digests(other)) == 8
    assert summary["documents"] == 203
    assert summary["blocks"] == 4
    source = Source.of_artifact(other)
    documents = [document for block in source.blocks for document in source.read(block)]
    assert len({document.id for document in documents}) == 203
    assert sum(document.gold_drop is True for document in documents) == summary["junk"]
    for document in documents:
        assert document.metadata["url"].startswith("https://")
        assert document.metadata["language"] == "en"
        assert {"site", "template"} <= set(document.metadata)
        assert (document.gold_program is None) == document.gold_drop


def test_a_second_run_reuses_blocks_and_a_missing_one_fails_the_seal(tmp_path: Path) -> None:
    step = Step("generate", "web", WEB, tasks=2)
    generate.run(Task(step, 0, store=tmp_path))
    with pytest.raises(RuntimeError, match="2 of 4 blocks are missing"):
        generate.seal(Task(step, 0, store=tmp_path))
    artifact, _ = run_step(tmp_path, generate, step)
    before = {path: path.stat().st_mtime_ns for path in (artifact / "blocks").iterdir()}
    run_step(tmp_path, generate, step)
    assert {path: path.stat().st_mtime_ns for path in (artifact / "blocks").iterdir()} == before
    counts = block_path(artifact, 1).with_suffix(".json")
    counts.write_text(json.dumps({**json.loads(counts.read_text()), "documents": 50}))
    with pytest.raises(RuntimeError, match="50 documents"):
        generate.seal(Task(step, 0, store=tmp_path))


def test_blocks_out_of_range_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus\.blocks=300"):
        generate.run(Task(Step("generate", "web", WEB | {"blocks": 300}), 0, store=tmp_path))


def test_heldout_of_the_world_is_clean_and_unseen(store: Path, tmp_path: Path) -> None:
    config = {"kind": "world", "documents": 30, "items": 50, "seed": 5}
    out, summary = run_step(tmp_path, heldout, Step("heldout", "world", config))
    held = [json.loads(line)["text"] for line in (out / "text.jsonl").read_text().splitlines()]
    items = [json.loads(line) for line in (out / "cloze.jsonl").read_text().splitlines()]
    assert (len(held), len(items)) == (30, 50) == (summary["documents"], summary["items"])
    assert all(set(item) == {"query", "choices", "gold"} and len(item["choices"]) == 4 for item in items)
    assert not any(text in page for text in held for page in texts(web(store)))
    assert not any(word in text for text in held for word in ("&nbsp;", "://", "All rights reserved", "cookies to"))
    again, _ = run_step(tmp_path / "again", heldout, Step("heldout", "world", config))
    assert (again / "cloze.jsonl").read_bytes() == (out / "cloze.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"evaluation\.items=481"):
        heldout.run(Task(Step("heldout", "w", config | {"items": 481}), 0, store=tmp_path))


def test_heldout_of_files_is_the_gold_text(tmp_path: Path) -> None:
    many = [line for i in range(400) for line in (f"Sentence {i}.", "Menu")]  # more removals than a model may write
    rows = [
        {"lines": ["Home", "One.", "Two."], "keep": [0, 1, 1]},
        {"lines": ["nothing kept"], "keep": [0]},
        {"lines": ["flags missing"], "keep": []},
        {"lines": many, "keep": [1, 0] * 400},
    ]
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = plan_files(Corpus("dev", "files", path=str(path), text_column="lines", keep_column="keep"))
    config = {"kind": "files", "source": source, "keep_column": "keep"}
    out, summary = run_step(tmp_path, heldout, Step("heldout", "dev", config))
    held = [json.loads(line)["text"] for line in (out / "text.jsonl").read_text().splitlines()]
    assert held == ["One.\nTwo.", "\n".join(many[::2])]
    assert summary["documents"] == 2
    assert summary["items"] == 0
    assert not (out / "cloze.jsonl").exists()


@pytest.mark.parametrize("rules", [["gopher_repetition", "gopher_quality"], ["c4"], ["fineweb"]])
def test_filters_account_for_every_document(store: Path, rules: list[str]) -> None:
    step = Step("filter", "-".join(rules), {"rules": rules}, {"corpus": Step("generate", "web", WEB).address}, tasks=2)
    out, summary = run_step(store, filters, step)
    assert summary["documents_in"] == 203
    assert summary["documents_in"] == summary["documents_out"] + sum(summary["dropped"].values())
    assert 0 < summary["documents_out"] < 203
    assert all(reason.split(":")[0] in rules for reason in summary["dropped"])
    kept, given = texts(out), set(texts(web(store)))
    assert sum(map(len, kept)) == summary["characters_out"] < summary["characters_in"] == sum(map(len, given))
    if rules == ["c4"]:  # edits: what stays are lines of the page, each ending a sentence
        assert not set(kept) <= given
        assert all(line.endswith((".", "!", "?", '"', "'")) for t in kept for line in t.split("\n"))
    else:
        assert set(kept) <= given
    document = next(iter(Source.of_artifact(out).read(Source.of_artifact(out).blocks[0])))
    assert document.gold_drop is None
    assert document.gold_program is None
    assert document.metadata["url"]


def test_filters_survive_hostile_files_and_name_unknown_rules(tmp_path: Path) -> None:
    rows = ["", " \n\t", "\u200b\n\u200b", "\x00\x1b" * 500, "...!!!" * 300, "a" * 2_000_000, "IS_ALPHA " * 60]
    lines = [json.dumps({"text": text}) for text in rows] + ["not json"]
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    source = plan_files(Corpus("bad", "files", path=str(tmp_path)))
    config = {"rules": list(filters.RULES), "source": source}
    _, summary = run_step(tmp_path, filters, Step("filter", "bad", config))
    assert summary["documents_in"] == len(rows)
    assert summary["failed"] == {"invalid JSON": 1}
    assert summary["documents_in"] == summary["documents_out"] + sum(summary["dropped"].values())
    with pytest.raises(UserError, match="gopher_repetition, gopher_quality, c4, fineweb"):
        filters.make_rules(["c5"])
