"""Alarms show some of the documents behind them: the worst, bounded, without characters that nobody sees."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.corpus.read import Document
from prox_hpc.corpus.write import block_path, write_block
from prox_hpc.programs import ChunkProgram
from prox_hpc.publish import publish_json
from prox_hpc.refine.records import Written
from prox_hpc.report.collect import Study
from prox_hpc.report.excerpts import BLOCKS, LINES, LOOKED_AT, NAME, SHOWN, WIDTH, with_excerpts

BODY = [f"Line {n} of the page says something about the museum in the old town." for n in range(12)]
MakeRun = Callable[..., Path]


def page(name: str, junk: bool = False, gold: str = "keep_chunk()", text: str = "") -> Document:
    return Document(name, text or "\n".join([f"I am {name}.", *BODY]), {"url": f"https://a.test/{name}"}, junk, gold)


def written(program: str | None, score: float = 1.0, lines: int = 13, **more: Any) -> Written:
    return Written(score, chunks=[ChunkProgram(0, lines, program, **more)])


def study_of(run: Path) -> Study:
    """A study that knows of its refine step alone."""
    saved = json.loads((run / "study.json").read_text())
    refine = next(address for address in saved["steps"] if address.startswith("refine/"))
    return Study(Path(saved["config"]["store"]), {}, {}, {"refine": refine}, run, {})


def shown(study: Study, name: str, **more: Any) -> dict[str, Any]:
    (alarm,) = with_excerpts(study, [{"name": name, **more}])
    documents: dict[str, Any] = alarm["documents"]
    return documents


def test_failed_programs_with_what_was_written_and_why(make_run: MakeRun) -> None:
    broken = [(page("fine"), written("keep_chunk()")), (page("bad"), written("remove_the_lines 3"))]
    cut = [(page("cut"), written('remove_lines(0, 0)\nnormalize("The mus', truncated=True))]
    found = shown(study_of(make_run(broken, cut)), "failed_programs")
    assert (found["matched"], found["looked_at"]) == (2, 3)
    bad, cut_off = found["excerpts"]
    assert bad["document"] == "bad"
    assert bad["said"].startswith("chunk 0, lines 0 to 12: malformed (")
    assert bad["parts"][0] == {"label": "program", "text": "remove_the_lines 3"}
    assert bad["parts"][1]["text"].startswith("I am bad.")
    assert cut_off["said"].startswith("chunk 0, lines 0 to 12: truncated")


def test_misjudged_documents_of_both_kinds_the_surest_first(make_run: MakeRun) -> None:
    good = [(page(f"good{n}"), Written(-1.0 - n)) for n in range(20)]
    junk = [(page(f"junk{n}", junk=True), written("keep_chunk()", 2.0 + n)) for n in range(3)]
    right = [(page("right"), written("keep_chunk()")), (page("rightly", junk=True), Written(-9.0))]
    found = shown(study_of(make_run(good + junk + right)), "doc_f1")
    assert (found["matched"], found["looked_at"]) == (23, 25)
    names = [one["document"] for one in found["excerpts"]]
    assert names == [f"good{n}" for n in range(19, 12, -1)] + ["junk2", "junk1", "junk0"]
    assert found["excerpts"][0]["said"] == "good, but dropped (score -20.00)"
    assert found["excerpts"][-1]["said"] == "junk, but kept (score +2.00)"


def test_pages_cleaned_worst_with_the_lines(make_run: MakeRun) -> None:
    gold = "remove_lines(1, 3)"
    half = (page("half", gold=gold), written("remove_lines(2, 3)"))
    wrong = (page("wrong", gold=gold), written("remove_lines(0, 0)"))
    right = (page("right", gold=gold), written(gold))
    found = shown(study_of(make_run([half, wrong, right])), "line_f1")
    assert [one["document"] for one in found["excerpts"]] == ["wrong", "half"]
    worst = found["excerpts"][0]
    assert worst["said"] == "F1 0.00: 3 lines missed, 1 wrongly removed"
    assert [part["label"] for part in worst["parts"]] == ["missed", "wrongly removed"]
    assert worst["parts"][0]["text"].splitlines()[0] == f"1: {BODY[0]}"
    assert worst["parts"][1]["text"] == "0: I am wrong."


def test_quarantined_documents_are_found_wherever_they_are(make_run: MakeRun) -> None:
    blocks = [[(page(f"{n}-{m}"), written("keep_chunk()")) for m in range(2)] for n in range(BLOCKS + 3)]
    blocks[BLOCKS + 1][1] = (page("refused"), Written(quarantined="HTTP 500"))
    found = shown(study_of(make_run(*blocks)), "quarantined")
    assert (found["matched"], found["looked_at"]) == (1, 2 * (BLOCKS + 3))
    assert found["excerpts"][0]["document"] == "refused"
    assert found["excerpts"][0]["said"] == "HTTP 500"


def test_what_an_arm_dropped_and_edited_most(make_run: MakeRun) -> None:
    documents = [page("long", text="word " * 500), page("cut"), page("short", text="gone"), page("same")]
    study = study_of(make_run([(document, written("keep_chunk()")) for document in documents]))
    folder = study.store / "artifacts" / "execute" / "prox_dc-1"
    kept = [documents[1]._replace(text="\n".join(["I am cut.", *BODY[4:]])), documents[3]]
    write_block(block_path(folder, 0), kept)
    publish_json(folder / "artifact.json", {})
    study.roles["arm/prox_dc"] = "execute/prox_dc-1"
    found = shown(study, "score_drop", arm="prox_dc")
    assert [one["document"] for one in found["excerpts"]] == ["long", "short", "cut"]
    assert found["excerpts"][0]["said"] == "dropped (2,500 characters)"
    assert found["excerpts"][2]["parts"] == [{"label": "lines removed or changed", "text": "\n".join(BODY[:4])}]


def test_an_arm_worse_than_two_others_shows_its_documents_once(make_run: MakeRun) -> None:
    study = study_of(make_run([(page("one"), written("keep_chunk()"))]))
    alarms = with_excerpts(study, [{"name": "score_drop", "arm": "prox_dc"}] * 2 + [{"name": "epochs"}])
    assert ["documents" in alarm for alarm in alarms] == [True, False, False]
    assert "the documents of prox_dc are not published" in alarms[0]["documents"]["note"]


def test_hostile_text_is_bounded_and_has_nothing_unseen(make_run: MakeRun) -> None:
    text = "\n".join(["<script>\u202e\x00\x1b[31m" + "x" * 100_000, *(["line"] * 500)])
    bad = Document("\u202e" + "i" * 5000, text, {"url": "javascript:" + "u" * 5000})
    run = make_run([(bad, written("\u200b" * 3000 + "drop everything", lines=501)) for _ in range(SHOWN + 2)])
    found = shown(study_of(run), "failed_programs")
    assert len(found["excerpts"]) == SHOWN
    told = json.dumps(found, ensure_ascii=False)
    assert not any(character in told for character in "\u202e\u200b\x00\x1b")
    for one in found["excerpts"]:
        assert len(one["document"]) <= NAME + 1
        for part in one["parts"]:
            assert len(part["text"]) <= (LINES + 1) * (WIDTH + 2)
    assert "<U+202E>" in found["excerpts"][0]["document"]


def test_a_large_corpus_is_looked_at_here_and_there(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prox_hpc.report.excerpts.BLOCKS", 3)
    monkeypatch.setattr("prox_hpc.report.excerpts.LOOKED_AT", 6)
    blocks = [[(page(f"{n}-{m}"), written("nonsense")) for m in range(4)] for n in range(9)]
    found = shown(study_of(make_run(*blocks)), "failed_programs")
    assert found["looked_at"] == found["matched"] == 6
    assert [one["document"] for one in found["excerpts"]] == ["0-0", "0-1", "3-0", "3-1", "6-0", "6-1"]
    assert LOOKED_AT >= 1000


def test_documents_that_cannot_be_read_are_told(make_run: MakeRun) -> None:
    study = study_of(make_run([(page("one"), written("nonsense"))]))
    (study.store / "steps" / study.roles["refine"] / "step.json").unlink()
    found = shown(study, "failed_programs")
    assert found["excerpts"] == []
    assert "step.json is missing" in found["note"]
