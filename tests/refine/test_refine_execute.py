"""Arms made from recorded programs, from gold and by lot; no model runs here."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prox_hpc.corpus.read import Document
from prox_hpc.errors import UserError
from prox_hpc.programs import ChunkProgram
from prox_hpc.programs.record import text_hash
from prox_hpc.publish import publish_file, publish_json
from prox_hpc.refine import execute
from prox_hpc.refine.counts import Digest
from prox_hpc.refine.execute import needed_tokens
from prox_hpc.refine.records import Execution, Written, programs_path, row, schema
from prox_hpc.task import Step, Task

Publish = Callable[..., str]
BODY = "The museum opened its doors in the old town and has been visited by many people since."
PAGE = f"Home | About\n{BODY}\nShare this"
DOCUMENTS = [
    Document("edited", PAGE, {"url": "u"}, False, "remove_lines(0, 0)\nremove_lines(2, 2)"),
    Document("untouched", BODY, {}, False, "keep_chunk()"),
    Document("junk", BODY + " cheap", {}, True, "keep_chunk()"),
    Document("blank", " \n", {}, None, None),
    Document("odd", f"\x00\x01 {BODY}\n\n\u2028\x85", {}, False, "remove_lines(1, 1)"),
]
WRITTEN = [
    Written(0.5, chunks=[ChunkProgram(0, 2, "remove_lines(0, 0)"), ChunkProgram(2, 1, 'normalize("Share")')]),
    Written(0.1, chunks=[ChunkProgram(0, 1, "rubbish")]),
    Written(-2.0),
    Written(),
    Written(0.0, chunks=[ChunkProgram(0, 3, "remove_lines(1, 1)\nremove_lines(0,", truncated=True)]),
]


def programs(store: Path, corpus: str, written: list[Written] = WRITTEN, documents: list[Document] = DOCUMENTS) -> str:
    """A refine artifact of one block with these programs."""
    step = Step("refine", "web-tiny", {}, {"corpus": corpus})
    out = store / "artifacts" / step.address
    rows = [
        row(document, one, Execution(chunk=bool(one.chunks))) for document, one in zip(documents, written, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema())
    publish_file(out / "blocks" / "00000.programs.parquet", lambda draft: pq.write_table(table, draft))
    publish_json(out / "artifact.json", {"summary": {}})
    return step.address


def run(store: Path, arm: dict[str, Any], inputs: dict[str, str]) -> tuple[Step, dict[str, str], dict[str, Any]]:
    """-> the step, text by id, summary."""
    step = Step("execute", arm["kind"], {"arm": arm}, inputs)
    task = Task(step, 0, store)
    execute.run(task)
    summary = execute.seal(task)
    publish_json(task.out / "artifact.json", {"summary": summary})
    rows = [r for path in sorted((task.out / "blocks").glob("*.parquet")) for r in pq.read_table(path).to_pylist()]
    assert all(set(r) == {"id", "text", "metadata"} for r in rows)
    return step, {r["id"]: r["text"] for r in rows}, summary


@pytest.fixture
def corpus(publish_corpus: Publish) -> str:
    return publish_corpus(DOCUMENTS)


def test_recorded_programs_are_executed(store: Path, corpus: str) -> None:
    inputs = {"corpus": corpus, "programs": programs(store, corpus)}
    _, texts, summary = run(store, {"kind": "refined", "doc": True, "chunk": True}, inputs)
    assert texts == {
        "edited": f"{BODY}\n this",
        "untouched": BODY,
        "blank": " \n",
        "odd": f"\x00\x01 {BODY}\n\u2028\x85",  # the cut-off call is discarded, the one before it stands
    }
    assert summary["outcomes"] == {"untouched": 2, "edited": 2, "dropped": 1, "failed": 0}
    assert (summary["documents_in"], summary["documents_out"]) == (5, 4)
    assert summary["characters_in"] == sum(len(document.text) for document in DOCUMENTS)
    assert summary["characters_out"] == sum(map(len, texts.values()))
    assert summary["reasons"] == {"doc program": 1}


def test_settings_of_the_arm(store: Path, corpus: str) -> None:
    inputs = {"corpus": corpus, "programs": programs(store, corpus)}
    texts = run(store, {"kind": "refined", "doc": True, "chunk": False}, inputs)[1]
    assert texts["edited"] == PAGE
    assert "junk" not in texts
    texts = run(store, {"kind": "refined", "doc": True, "chunk": False, "doc_threshold": 0.3}, inputs)[1]
    assert set(texts) == {"edited", "blank"}
    texts = run(store, {"kind": "refined", "profile": "deletion_only"}, inputs)[1]
    assert texts["edited"] == f"{BODY}\nShare this"
    texts = run(store, {"kind": "refined", "checks": {"min_words": 1000}}, inputs)[1]
    assert set(texts) == {"untouched", "blank"}  # edited documents are now too short


def test_an_arm_needs_the_tokens_that_it_would_have_asked_for(store: Path, corpus: str) -> None:
    """All documents were programmed, for an arm without the doc stage: scores 0.5, 0.1, -2, none (blank) and 0."""
    spent = [(10, 100, 1), (20, 200, 2), (40, 400, 4), (0, 0, 0), (80, 800, 8)]
    written = [
        replace(one, chunks=one.chunks or WRITTEN[1].chunks, doc_tokens=doc, chunk_tokens=chunk, program_tokens=program)
        if doc
        else one
        for one, (doc, chunk, program) in zip(WRITTEN, spent, strict=True)
    ]
    inputs = {"corpus": corpus, "programs": programs(store, corpus, written)}

    def tokens(**arm: Any) -> tuple[int, ...]:
        found = run(store, {"kind": "refined", **arm}, inputs)[2]["tokens"]
        return tuple(found[kind] for kind in ("doc_prefill", "chunk_prefill", "chunk_decode"))

    assert tokens(doc=False) == (0, 1500, 15)
    assert tokens(chunk=False) == (150, 0, 0)
    assert tokens() == (150, 1100, 11)
    assert tokens(doc_threshold=0.3) == (150, 100, 1)
    assert run(store, {"kind": "gold"}, {"corpus": corpus})[2]["tokens"] == {}
    path = programs_path(store / "artifacts" / inputs["programs"], 0)
    assert needed_tokens(path, Execution(threshold=0.3), 0.25)["chunk_prefill"] == 300, "with what lies in the margin"


def test_what_was_not_programmed_cannot_be_executed(store: Path, corpus: str) -> None:
    inputs = {"corpus": corpus, "programs": programs(store, corpus)}
    with pytest.raises(UserError, match=r"'junk' \(score -2\.0\) has no chunk programs"):
        run(store, {"kind": "refined", "doc_threshold": -3.0}, inputs)
    with pytest.raises(UserError, match="no chunk programs"):
        run(store, {"kind": "refined", "doc": False}, inputs)


def test_programs_of_another_corpus_are_refused(store: Path, corpus: str, publish_corpus: Publish) -> None:
    inputs = {"programs": programs(store, corpus)}
    changed = [*DOCUMENTS[:1], Document("untouched", BODY + "!", {}), *DOCUMENTS[2:]]
    with pytest.raises(RuntimeError, match="'untouched'"):
        run(store, {"kind": "refined"}, {**inputs, "corpus": publish_corpus(changed, [])})
    with pytest.raises(RuntimeError, match="another corpus's"):
        run(store, {"kind": "refined"}, {**inputs, "corpus": publish_corpus(DOCUMENTS[:4])})


def test_gold(store: Path, corpus: str) -> None:
    _, texts, summary = run(store, {"kind": "gold"}, {"corpus": corpus})
    odd = f"\x00\x01 {BODY}\n\u2028\x85"
    assert texts == {"edited": BODY, "untouched": BODY, "blank": " \n", "odd": odd}
    assert summary["outcomes"] == {"untouched": 2, "edited": 2, "dropped": 1, "failed": 0}


def test_gold_programs_may_be_of_any_length(store: Path, publish_corpus: Publish) -> None:
    lines = ["menu", BODY] * 3000
    program = "\n".join(f"remove_lines({2 * i}, {2 * i})" for i in range(3000))
    corpus = publish_corpus([Document("long", "\n".join(lines), {}, False, program)])
    assert run(store, {"kind": "gold"}, {"corpus": corpus})[1] == {"long": "\n".join([BODY] * 3000)}


def test_random_keeps_as_many_documents_as_the_arm_it_is_like(store: Path, publish_corpus: Publish) -> None:
    blocks = [[Document(f"{b}-{i}", f"{BODY} {i}", {}, i % 5 == 0, None) for i in range(100)] for b in range(3)]
    inputs = {"corpus": publish_corpus(*blocks)}
    like, _, gold = run(store, {"kind": "gold"}, inputs)
    assert gold["documents_out"] == 240
    kept = [run(store, {"kind": "random", "seed": seed}, {**inputs, "like": like.address}) for seed in (1, 2, 1)]
    for _, texts, summary in kept:
        assert summary["documents_out"] == len(texts) == 240
        assert summary["reasons"] == {"not drawn": 60}
    assert kept[0][1] == kept[2][1]
    assert kept[0][1] != kept[1][1]
    assert any(identity.endswith(("0", "5")) for identity in kept[0][1])  # by lot, not by truth


def test_a_second_run_computes_only_what_is_missing(store: Path, publish_corpus: Publish) -> None:
    blocks = [[Document(f"{b}", BODY, {}, False, "keep_chunk()")] for b in range(3)]
    step, _, summary = run(store, {"kind": "gold"}, {"corpus": publish_corpus(*blocks)})
    task = Task(step, 0, store)
    files = sorted((task.out / "blocks").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    (task.out / "blocks" / "00001.json").unlink()
    with pytest.raises(RuntimeError, match=r"1 of 3 blocks are missing, first \[1\]"):
        execute.seal(task)
    execute.run(task)
    assert execute.seal(task) == summary
    changed = [file.name for file, then in zip(files, before, strict=True) if file.stat().st_mtime_ns != then]
    assert changed == ["00001.json"]


def test_blocks_of_an_older_revision_are_summed_without_tokens(store: Path, corpus: str) -> None:
    step, _, summary = run(store, {"kind": "gold"}, {"corpus": corpus})
    path = Task(step, 0, store).out / "blocks" / "00000.json"
    counts = json.loads(path.read_text())
    del counts["tokens"]
    path.write_text(json.dumps(counts))
    del summary["tokens"]
    assert execute.seal(Task(step, 0, store)) == summary, "prox_hpc.verify compares the two"


def test_lost_documents_are_found(store: Path, corpus: str) -> None:
    step, _, _ = run(store, {"kind": "gold"}, {"corpus": corpus})
    path = Task(step, 0, store).out / "blocks" / "00000.json"
    counts = json.loads(path.read_text())
    path.write_text(json.dumps(counts | {"documents_in": counts["documents_in"] + 1}))
    with pytest.raises(RuntimeError, match="lost or doubled"):
        execute.seal(Task(step, 0, store))


def test_the_digest_of_documents_knows_no_order_but_counts() -> None:
    def digest(*documents: tuple[str, str]) -> str:
        result = Digest()
        for identity, text in documents:
            result.add(identity, text_hash(text))
        return str(result)

    one, other = ("a", "bc"), ("d", "\ud800")
    assert digest(one, other) == digest(other, one)
    assert digest(one) != digest(one, one, one)
    assert digest(("ab", "c")) != digest(("a", "bc"))
