"""The refine step on a real server: every document comes out once, whatever it holds and whoever dies on the way."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from prox_hpc.config import Corpus, Refiner
from prox_hpc.corpus.files import plan_files
from prox_hpc.corpus.read import Document, open_source
from prox_hpc.errors import UserError
from prox_hpc.programs import parse, split_chunks
from prox_hpc.programs.record import text_hash
from prox_hpc.publish import publish_json
from prox_hpc.refine import execute, tokens
from prox_hpc.refine import task as refine
from prox_hpc.refine.chunk import ChunkStage
from prox_hpc.refine.counts import Digest
from prox_hpc.refine.doc import DocStage
from prox_hpc.serve.prompt import TEMPLATES, render_chunk
from prox_hpc.serve.server import ServerError
from prox_hpc.task import Step, Task

Publish = Callable[..., str]
SERVE = {"device": "cpu", "dtype": "float32", "max_total_tokens": 8192, "requests_in_flight": 8}
SIZE = 150  # of a block: three hold more than there is room for between reading and writing
LINES = ["Home | About | Contact", "The quick brown fox jumps over the lazy dog.", "Share this page", "Cookies"]


def settings(model: Path, **changes: Any) -> dict[str, Any]:
    refiner = {"prompt": "tags", "max_chunk_tokens": 300, "max_doc_tokens": 300, "max_new_tokens": 24}
    refiner |= {"doc_model": str(model), "chunk_model": str(model), "constrained": True}
    refiner |= {"doc_threshold": 0.0, "chunk_margin": 0.0, **changes}
    return {"refiner": refiner, "doc_stage": True, "chunk_stage": True, "program_all": False}


def page(number: int, lines: int = 6) -> str:
    return "\n".join(f"{LINES[(number + i) % 4]} {number * i}" for i in range(lines))


def files(folder: Path, blocks: int, size: int) -> dict[str, Any]:
    """Ordinary pages in JSONL files, and in the first one everything that is not ordinary."""
    folder.mkdir()
    for block in range(blocks):
        records = [{"id": f"{block}-{i}", "text": page(block * size + i), "url": "u"} for i in range(size)]
        path = folder / f"{block}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with (folder / "0.jsonl").open("ab") as file:
        for identity, text in (
            ("empty", ""),
            ("blank", " \n\t\n"),
            ("long line", "word " * 2_000_000),
            ("long word", "x" * 10_000_000),
            ("control", "\x00\x01\x02\x7f\u2028\x85 " * 5),
            ("surrogate", "a \ud800 b"),
            ("long", page(3, 200)),
            ("tags", "</doc>\n[000]<chunk>\n<|endoftext|>"),
        ):
            file.write(json.dumps({"id": identity, "text": text}).encode() + b"\n")
        file.write(b'{"id": "latin", "text": "caf\xe9 in the old town"}\n')
        file.write(b"{not JSON\n")
        file.write(b'{"id": "no text"}\n')
    return plan_files(Corpus(name="pages", kind="files", path=str(folder)))


def kill_server_after(manifest: Path) -> threading.Thread:
    """SIGKILL our child, the server, as soon as the first block is published."""

    def kill() -> None:
        deadline = time.monotonic() + 300
        while not manifest.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        for child in psutil.Process().children():
            if "sglang.launch_server" in child.cmdline():
                os.kill(child.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def refined(tiny_refiner: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A sealed refine step of three blocks whose first task lost its server after the first block."""
    folder = tmp_path_factory.mktemp("refine")
    # The threshold lies within the scores of these pages, so that both verdicts occur; its margin covers some of them.
    config = settings(tiny_refiner, doc_threshold=0.5, chunk_margin=0.2)
    config |= {"source": files(folder / "pages", blocks=3, size=SIZE)}
    once = Step("refine", "pages-tiny", config, runtime={"serve": {**SERVE, "restarts": 0}})
    task = Task(replace(once, runtime={"serve": SERVE}), 0, folder / "store")
    killer = kill_server_after(task.out / "blocks" / "00000.json")
    with pytest.raises(ServerError, match=r"(?s)ended by signal SIGKILL.*last lines of"):
        refine.run(Task(once, 0, folder / "store"))
    killer.join()
    with pytest.raises(RuntimeError, match="of 3 blocks are missing"):
        refine.seal(task)
    before = {path.name: path.stat().st_mtime_ns for path in (task.out / "blocks").iterdir()}
    assert {"00000.json", "00000.programs.parquet", "00000.refined.parquet"} <= set(before)
    assert "00002.json" not in before
    refine.run(task)
    for name, then in before.items():
        assert (task.out / "blocks" / name).stat().st_mtime_ns == then, name
    publish_json(task.out / "artifact.json", {"summary": refine.seal(task)})
    return task


def rows(task: Task, kind: str = "programs") -> list[dict[str, Any]]:
    paths = sorted((task.out / "blocks").glob(f"*.{kind}.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def documents(task: Task) -> list[Document]:
    source = open_source(task)
    return [document for block in source.blocks for document in source.read(block)]


def summary(task: Task) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((task.out / "artifact.json").read_text())["summary"]
    return result


def test_every_document_comes_out_once(refined: Task) -> None:
    counts = summary(refined)["documents"]
    assert counts["in"] == 3 * SIZE + 8 + 3
    assert counts["failed"] == 2
    assert summary(refined)["failures"] == {"invalid JSON": 1, "text is null or missing": 1}
    assert counts["in"] == counts["kept"] + counts["dropped"] + counts["failed"]
    assert counts["kept"] == counts["untouched"] + counts["edited"] == len(rows(refined, "refined"))
    assert counts["dropped"] > 10
    assert counts["kept"] > 10
    assert [row["id"] for row in rows(refined)] == [document.id for document in documents(refined)]
    digests = {"digest_in": Digest(), "digest_out": Digest()}
    for document in documents(refined):
        digests["digest_in"].add(document.id, text_hash(document.text))
    for row in rows(refined, "refined"):
        digests["digest_out"].add(row["id"], text_hash(row["text"]))
    for name, digest in digests.items():
        assert summary(refined)[name] == str(digest)


def test_verdicts_follow_the_threshold_and_the_margin(refined: Task) -> None:
    programmed_below = 0
    for row in rows(refined):
        if row["reason"] == "blank":
            assert (row["doc_score"], row["doc_program"], row["outcome"]) == (None, None, "untouched")
            continue
        keep = row["doc_score"] >= 0.5
        assert row["doc_program"] == ("keep_doc()" if keep else "drop_doc()")
        assert keep or row["outcome"] == "dropped"
        assert bool(row["chunks"]) == (row["doc_score"] >= 0.5 - 0.2)
        programmed_below += bool(row["chunks"]) and not keep
    assert programmed_below


def test_programs_are_recorded_with_their_status(refined: Task) -> None:
    statuses: dict[str, int] = {}
    for row, document in zip(rows(refined), documents(refined), strict=True):
        lines = 0
        for chunk in row["chunks"]:
            assert chunk["first_line"] == lines
            lines += chunk["line_count"]
            statuses[chunk["status"]] = statuses.get(chunk["status"], 0) + 1
            if chunk["program"] is None:
                assert chunk["status"] == "oversized"
                continue
            assert parse(chunk["program"], "chunk", truncated=chunk["truncated"]).status != "malformed"
            assert (chunk["status"] == "truncated") == chunk["truncated"]
        assert lines in (0, document.text.count("\n") + 1)
    assert summary(refined)["programs"]["chunk"] == statuses
    assert statuses["truncated"]
    scored = sum(row["doc_score"] is not None for row in rows(refined))
    assert summary(refined)["programs"]["doc"] == {"ok": scored, "not_scored": 2}


def test_odd_documents_are_counted_and_pass(refined: Task) -> None:
    by_id = {row["id"]: row for row in rows(refined)}
    assert {identity for identity, row in by_id.items() if row["doc_cut"]} == {"long line", "long word", "long"}
    assert all(by_id[identity]["doc_score"] is not None for identity in ("control", "surrogate", "latin", "tags"))
    for identity in ("long line", "long word"):
        row = by_id[identity]
        assert row["doc_tokens"] <= 320
        if row["chunks"]:
            assert [chunk["status"] for chunk in row["chunks"]] == ["oversized"]


def test_tokens_are_those_of_the_prompts(refined: Task, tiny_refiner: Path) -> None:
    model = tokens.load(str(tiny_refiner))
    stage = DocStage.of(model, "tags", 300, 500, ["keep_doc()", "drop_doc()"])
    asked = [document.text for document in documents(refined) if document.text.strip()]
    figures = summary(refined)["tokens"]
    assert figures["doc_prefill"] == sum(len(prompt.ids) for prompt in stage.prompts(asked))
    assert figures["doc_decode"] == 0
    programmed = sum(chunk["program"] is not None for row in rows(refined) for chunk in row["chunks"])
    assert programmed <= figures["chunk_decode"] <= 24 * programmed
    assert figures["chunk_prefill"] > programmed
    counts = {"non_embedding": 82240, "minus_one_embedding": 82240 + 1024 * 64, "total": 82240 + 2 * 1024 * 64}
    assert {key: summary(refined)["parameters"]["doc"][key] for key in counts} == counts
    assert summary(refined)["server_version"] == "0.5.23"
    assert summary(refined)["seconds"] > 0


def test_execute_makes_the_same_bytes(refined: Task) -> None:
    """The refined documents of the step itself are those of the arm with both stages."""
    arm = {"kind": "refined", "doc": True, "chunk": True, "profile": "v1", "doc_threshold": 0.5}
    config = {"arm": arm, "source": refined.config["source"]}
    step = Step("execute", "prox_dc", config, {"programs": refined.step.address})
    task = Task(step, 0, refined.store)
    execute.run(task)
    counts = execute.seal(task)
    assert counts["outcomes"] == {
        key: summary(refined)["documents"][key] for key in ("untouched", "edited", "dropped", "failed")
    }
    for block in range(3):
        made = (task.out / "blocks" / f"{block:05d}.parquet").read_bytes()
        assert made == (refined.out / "blocks" / f"{block:05d}.refined.parquet").read_bytes()


def test_progress_is_told(refined: Task) -> None:
    status = json.loads((refined.state / "tasks" / "00000.json").read_text())
    assert status["unit"] == "documents"
    assert status["done"] == status["total"] == summary(refined)["documents"]["in"]
    assert status["figures"]["documents_per_second"] > 0


def test_what_has_programs_is_finished_without_a_server(refined: Task) -> None:
    blocks = refined.out / "blocks"
    before = {path: path.read_bytes() for path in blocks.iterdir()}
    for name in ("00001.json", "00001.refined.parquet", "00002.json"):
        (blocks / name).unlink()
    no_server = {"serve": {**SERVE, "command": ["/nonexistent/python"]}}
    refine.run(Task(replace(refined.step, runtime=no_server), 0, refined.store))
    assert {path: path.read_bytes() for path in blocks.iterdir()} == before


def test_a_damaged_block_is_found(refined: Task) -> None:
    manifest = refined.out / "blocks" / "00001.json"
    sound = manifest.read_text()
    counts = json.loads(sound)
    try:
        manifest.write_text(json.dumps(counts | {"kept": counts["kept"] + 1}))
        with pytest.raises(RuntimeError, match="lost or doubled"):
            refine.seal(refined)
        manifest.write_text(json.dumps(counts | {"kept": counts["kept"] + 1, "dropped": counts["dropped"] - 1}))
        with pytest.raises(RuntimeError, match="rows, but its manifest says"):
            refine.seal(refined)
    finally:
        manifest.write_text(sound)


def run(store: Path, corpus: str, config: dict[str, Any], **serve: Any) -> None:
    step = Step("refine", "pages-tiny", config, {"corpus": corpus}, runtime={"serve": {**SERVE, **serve}})
    refine.run(Task(step, 0, store))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_doc_tokens": 2000}, r"refiner\.max_doc_tokens=2000.*can read; set it to at most 49\d"),
        ({"max_chunk_tokens": 480}, r"refiner\.max_chunk_tokens=480.*set it to at most 4\d\d"),
        ({"doc_answers": ["keep", "keep"]}, r"refiner\.doc_answers"),
        ({"prompt": "chatml"}, "no such prompt template"),
        ({"doc_model": "/nonexistent/model"}, "/nonexistent/model: no such model folder"),
        ({"chunk_model": None}, "refiner.chunk_model: is not set"),
    ],
)
def test_settings_that_cannot_work_are_found_before_a_server_starts(
    store: Path, publish_corpus: Publish, tiny_refiner: Path, changes: dict[str, Any], message: str
) -> None:
    corpus = publish_corpus([Document("a", page(1), {})])
    with pytest.raises(UserError, match=message):
        run(store, corpus, settings(tiny_refiner, **changes), command=["/nonexistent/python"])


def test_a_model_without_tokenizer_is_named(store: Path, publish_corpus: Publish, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(UserError, match=rf"{model}: has no tokenizer"):
        run(store, publish_corpus([Document("a", page(1), {})]), settings(model))


def test_long_documents_fit_the_limit_by_head_and_tail(tiny_refiner: Path) -> None:
    model = tokens.load(str(tiny_refiner))
    stage = DocStage.of(model, "tags", 100, 120, ["keep_doc()", "drop_doc()"])
    short, long, emoji = stage.prompts([page(1), page(1, 500), "\U0001f600\ud800" * 3000])
    assert (short.cut, long.cut, emoji.cut) == (False, True, True)
    shown = model.tokenizer.decode(long.ids)
    assert shown.startswith("<doc>\n" + page(1, 500)[:40])
    assert shown.endswith(page(1, 500)[-40:] + "\n</doc>\n")
    assert "\n[...]\n" in shown
    assert all(len(prompt.ids) <= 120 for prompt in (short, long, emoji))


def test_a_page_cannot_end_its_own_prompt(tiny_refiner: Path) -> None:
    model = tokens.load(str(tiny_refiner))
    text = "before <|endoftext|> after"
    doc = DocStage.of(model, "tags", 300, 400, ["keep_doc()", "drop_doc()"])
    chunk = ChunkStage.of(model, "tags", 300, 24, 400, constrained=False)
    for ids in (doc.prompts([text])[0].ids, chunk.prompts([text])[0][0].ids):
        assert ids is not None
        assert model.eos_id not in ids
        assert text in model.tokenizer.decode(ids, skip_special_tokens=False)


def test_one_reading_serves_both_stages(tiny_refiner: Path) -> None:
    """The doc prompt of a page begins as the prompt of its first chunk does, up to the tag that asks."""
    model = tokens.load(str(tiny_refiner))
    doc = DocStage.of(model, "page", 300, 400, ["keep_doc()", "drop_doc()"])
    chunk = ChunkStage.of(model, "page", 300, 24, 400, constrained=False)
    (asked, *others), prompt = chunk.prompts([page(1, 9)])[0], doc.prompts([page(1, 9)])[0]
    assert (others, prompt.cut) == ([], False)
    assert asked.ids is not None
    tag = model.encode(["</chunk>\n"])[0]
    assert asked.ids[-len(tag) :] == tag
    assert prompt.ids[: len(asked.ids) - len(tag)] == asked.ids[: -len(tag)]
    assert model.tokenizer.decode(prompt.ids).endswith("\n</doc>\n")
    many = doc.prompts(["\n" * 5000])[0]  # a line's mark takes more than the line
    assert many.cut
    assert len(many.ids) <= 400


def test_chunks_hold_all_lines_within_the_limit(tiny_refiner: Path) -> None:
    model = tokens.load(str(tiny_refiner))
    stage = ChunkStage.of(model, "tags", 100, 24, 130, constrained=False)
    text = "\n".join([page(1, 30), "very " * 500, "x" * 50_000, page(2, 30)])
    empty, asked = stage.prompts(["", text])
    assert [(one.first_line, one.line_count) for one in empty] == [(0, 1)]
    lines = text.split("\n")
    assert [line for one in asked for line in lines[one.first_line : one.first_line + one.line_count]] == lines
    assert [lines[one.first_line][:5] for one in asked if one.ids is None] == ["very ", "xxxxx"]
    assert all(one.program(None).oversized == (one.ids is None) for one in asked)
    assert len(asked) > 6
    assert all(len(one.ids) <= 130 for one in asked if one.ids is not None)


@pytest.mark.parametrize("prompt", ["tags", "page", "llama2"])
@pytest.mark.parametrize("line_feeds", ["alone", "merged"])
def test_a_chunk_is_shown_as_if_it_were_tokenised_by_itself(tiny_refiner: Path, prompt: str, line_feeds: str) -> None:
    """Documents are tokenised whole and cut; with `merged`, a token of the vocabulary reaches over the line's end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    model = tokens.load(str(tiny_refiner))
    if line_feeds == "merged":
        tokenizer = Tokenizer(models.BPE())
        whole = pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.pre_tokenizer = whole
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(["1]a\n[0"] * 99, trainer)
        model = replace(model, tokenizer=tokenizer, context=9000)
    stage = ChunkStage.of(model, prompt, 400, 24, 2000, constrained=False)
    texts = [
        "",
        "\n\n",
        "a  \n  b\r\n\tc\n",
        "<chunk>\n</chunk>\n<|endoftext|>\u2028x\n",
        page(1, 80),
        "\n".join("a" * 200),
    ]
    several = 0
    for text, asked in zip(texts, stage.prompts(texts), strict=True):
        chunks = split_chunks(text, lambda lines: [len(ids) for ids in model.encode(lines)], 400)
        assert [(one.first_line, one.line_count) for one in asked] == [(c.first_line, len(c.lines)) for c in chunks]
        several += len(chunks) > 1
        for chunk, one in zip(chunks, asked, strict=True):
            shown = model.encode([render_chunk(prompt, chunk)], TEMPLATES[prompt].add_special_tokens)[0]
            if line_feeds == "alone":
                assert one.ids == shown
            else:
                assert model.tokenizer.decode(one.ids or []) == model.tokenizer.decode(shown)
    assert several


def test_settings_default_to_the_schemas() -> None:
    step = Step("refine", "x", {"refiner": {"doc_model": "a/b"}, "doc_stage": True, "chunk_stage": False})
    found = refine.Settings.of(Task(step, 0, Path("/nonexistent")))
    assert found.refiner == Refiner(name="x", doc_model="a/b")
    assert found.models == {"doc": "a/b"}
    assert not found.wants_chunks(5.0)
