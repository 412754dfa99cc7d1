"""Scores of hand-made programs whose F1 is known."""

import pytest

from prox_hpc.corpus.read import Document
from prox_hpc.refiner.score import Score

TEN_LINES = "\n".join(f"line {i}" for i in range(10))


def document(drop=False, program="remove_lines(0, 3)"):
    return Document("a", TEN_LINES, {}, drop, None if drop else program)


def row(verdict="keep_doc()", *programs, truncated=False):
    """Programs of successive chunks of five lines."""
    usual = {"line_count": 5, "truncated": truncated, "status": "ok"}
    chunks = [usual | {"first_line": 5 * i, "program": p, "oversized": p is None} for i, p in enumerate(programs)]
    return {"id": "a", "doc_program": verdict, "chunks": chunks}


def scored(*pairs):
    score = Score()
    for one, written in pairs:
        score.add(one, written)
    return score.figures()


def test_doc_f1_is_that_of_keep():
    keep, drop = document(), document(drop=True)
    of_good = [(keep, row())] * 6 + [(keep, row("drop_doc()"))] * 2
    of_junk = [(drop, row())] * 1 + [(drop, row("drop_doc()"))] * 3
    doc = scored(*of_good, *of_junk)["doc"]
    assert (doc["true_positive"], doc["false_negative"], doc["false_positive"], doc["true_negative"]) == (6, 2, 1, 3)
    assert doc["f1"] == pytest.approx(12 / 15)


def test_line_f1_micro_and_per_page():
    half = (document(), row("keep_doc()", "remove_lines(0, 1)", "keep_chunk()"))  # 2 of 4 found: F1 2/3
    wrong = (document(), row("keep_doc()", "keep_chunk()", "remove_lines(6, 9)"))  # none of 4 found, 4 false: F1 0
    both_empty = (document(program="keep_chunk()"), row("keep_doc()", "keep_chunk()", "keep_chunk()"))  # F1 1
    line = scored(half, wrong, both_empty)["line"]
    assert line["f1"] == pytest.approx(2 * 2 / (2 * 2 + 4 + 6))
    assert line["page_f1"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert line["true_negative"] == 30 - 2 - 4 - 6


def test_only_what_execution_would_remove_counts():
    outside = (document(), row("keep_doc()", "remove_lines(0, 3)\nremove_lines(4, 5)", "free text"))
    assert scored(outside)["line"]["f1"] == 1.0
    cut = (document(), row("keep_doc()", "remove_lines(0, 3)\nremove_li", truncated=True))
    assert scored(cut)["line"]["f1"] == 1.0
    assert scored((document(), row("keep_doc()", None, "keep_chunk()")))["line"]["recall"] == 0


def test_documents_that_cannot_be_scored_are_left_out_and_counted():
    not_programmed = (document(), row("drop_doc()"))
    junk_programmed = (document(drop=True), row("keep_doc()", "remove_lines(0, 4)"))
    without_gold = (Document("a", TEN_LINES, {}), row("keep_doc()", "remove_lines(0, 4)"))
    figures = scored(not_programmed, junk_programmed, without_gold)
    assert figures["line"]["f1"] is None
    assert figures["line"]["documents"] == 0
    assert figures["doc"]["documents"] == 2
    assert figures["counts"] == {"documents": 3, "not_programmed": 1, "chunk_ok": 2}
