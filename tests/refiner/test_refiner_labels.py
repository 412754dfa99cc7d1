"""Labels: what a refiner is asked and what it should answer, against the pages they were made from."""

from collections import Counter

import pytest

from prox_hpc.corpus.read import Document
from prox_hpc.corpus.web import make_page
from prox_hpc.programs import ChunkProgram, DocumentChecks, refine_document
from prox_hpc.refiner import labels
from prox_hpc.refiner import tokenizer as own

PAGES = [make_page("train", 9002, 0, row) for row in range(120)]
LENIENT = DocumentChecks(max_removed=2.0, min_words=0)


@pytest.fixture(scope="module")
def tokenizer():
    return own.train((page.text for page in PAGES), 2048)


def settings(**changes):
    answers = ("keep_doc()", "drop_doc()")
    usual = {"prompt": "tags", "max_chunk_tokens": 120, "max_doc_tokens": 200, "doc_answers": answers}
    return labels.Settings(**usual | changes)


def examples(tokenizer, document, counts=None, **changes):
    return list(labels.label(document, tokenizer, settings(**changes), Counter() if counts is None else counts))


def document(page, row=0):
    return Document(str(row), page.text, {}, page.drop, page.program)


def test_executing_all_chunk_labels_of_a_document_gives_the_gold_text(tokenizer):
    chunks_seen = 0
    for row, page in enumerate(PAGES):
        chunks = [e for e in examples(tokenizer, document(page, row)) if e.stage == "chunk"]
        if page.drop:
            assert not chunks
            continue
        programs = [ChunkProgram(e.first_line, e.lines, e.program) for e in chunks]
        assert refine_document(page.text, programs, checks=LENIENT).text == page.clean
        shown = [line[line.index("]") + 1 :] for e in chunks for line in e.prompt.split("\n")[1:-2]]
        assert "\n".join(shown) == page.text
        chunks_seen += len(chunks)
    assert chunks_seen > 2 * len(PAGES)


def test_doc_examples_carry_the_verdict_and_long_documents_are_cut(tokenizer):
    counts: Counter[str] = Counter()
    for row, page in enumerate(PAGES):
        first = examples(tokenizer, document(page, row), counts)[0]
        assert (first.stage, first.program) == ("doc", "drop_doc()" if page.drop else "keep_doc()")
        assert first.prompt.startswith(f"<doc>\n{page.text[:100]}")
        assert first.prompt.endswith(f"{page.text[-100:]}\n</doc>\n")
        assert len(tokenizer.encode(first.prompt).ids) <= 200 + 20
    assert counts["doc"] == counts["keep"] + counts["drop"] == counts["documents"] == len(PAGES)
    assert counts["drop"] == sum(page.drop for page in PAGES)
    assert 0 < counts["doc_cut"] < len(PAGES)


def test_documents_without_verdict_or_without_gold(tokenizer):
    counts: Counter[str] = Counter()
    page = next(page for page in PAGES if page.program)
    assert {e.stage for e in examples(tokenizer, Document("a", page.text, {}, None, page.program), counts)} == {"chunk"}
    assert examples(tokenizer, Document("b", page.text, {}), counts) == []
    assert counts["without_gold"] == 1


def test_a_line_too_long_to_be_shown_gives_no_example(tokenizer):
    counts: Counter[str] = Counter()
    text = "Home\n" + "far " * 500 + "\nThe end of the text."
    made = examples(tokenizer, Document("a", text, {}, None, "remove_lines(0, 1)"), counts)
    assert [(e.first_line, e.program) for e in made] == [(0, "remove_lines(0, 0)"), (2, "keep_chunk()")]
    assert counts["oversized"] == 1


def test_a_malformed_gold_program_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="malformed"):
        examples(tokenizer, Document("a", "text", {}, None, "remove_lines(x)"))
