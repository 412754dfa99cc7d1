"""Documents: chunks joined as lists of lines, the checks after editing, and the counts that go into reports."""

import pytest

from prox_hpc.programs import ChunkProgram, DocumentChecks, KeepChunk, Replacement, refine_document

OFF = DocumentChecks(max_removed=2, min_words=0)
TEXT = "\n".join(f"line {number} of a page about tea" for number in range(6))  # 7 words a line
LINES = TEXT.split("\n")


def test_each_chunk_costs_only_itself():
    result = refine_document(
        TEXT,
        [
            ChunkProgram(0, 2, "remove_lines(0, 0)"),
            ChunkProgram(2, 1, "drop_doc()"),
            ChunkProgram(3, 1, "remove_lines(0, 0)\nnormalize('tea', 'coffee')"),
            ChunkProgram(4, 1, "remove_lines(4, 4)\nremove_lines(0", truncated=True),
            ChunkProgram(5, 1, "keep_chunk()"),
        ],
    )
    assert result.text == "\n".join([LINES[1], LINES[2], LINES[3].replace("tea", "coffee"), LINES[5]])
    assert result.statuses == {"ok": 2, "malformed": 1, "partial": 1, "truncated": 1}
    assert (result.outcome, result.reason) == ("edited", None)
    assert (result.removed_lines, result.removed, result.replaced) == (2, ((0, 0), (4, 4)), 1)
    assert (result.words_in, result.words_out) == (42, 28)
    assert [(done.outcome, done.reason) for done in result.operations] == [
        ("applied", None),
        ("refused", "line outside the chunk"),
        ("applied", None),
        ("applied", None),
        ("no_change", None),
    ]
    assert [(chunk.first_line, chunk.status, chunk.reason) for chunk in result.chunks] == [
        (0, "ok", None),
        (2, "malformed", "call of the other stage"),
        (3, "partial", None),
        (4, "truncated", "last call cut off"),
        (5, "ok", None),
    ]
    assert result.operations[-1].op == KeepChunk()


def test_a_wholly_removed_chunk_leaves_no_empty_line():
    result = refine_document(TEXT, [ChunkProgram(0, 2, "keep_chunk()"), ChunkProgram(2, 2, "remove_lines(2, 3)")])
    assert result.text == "\n".join(LINES[:2] + LINES[4:])


def test_normalize_stays_inside_its_chunk():
    result = refine_document(TEXT, [ChunkProgram(0, 3, "normalize('tea')"), ChunkProgram(3, 3, "keep_chunk()")])
    assert result.text == "\n".join([line.replace("tea", "") for line in LINES[:3]] + LINES[3:])


@pytest.mark.parametrize("text", ["", "\n", "a\r\nb\r", "\ud800 \0\t\n\n ", TEXT, "one two three", " \n\n"])
@pytest.mark.parametrize("program", [None, "keep_chunk()", "remove_lines(77, 78)", "rubbish", "normalize('zebra')", ""])
def test_what_no_program_changes_comes_back_byte_for_byte(text, program):
    chunks = [ChunkProgram(0, text.count("\n") + 1, program)]
    for result in (refine_document(text, chunks), refine_document(text, [])):
        assert (result.text, result.outcome, result.reason) == (text, "kept", None)
        assert result.words_in == result.words_out


def test_oversized_and_unprogrammed_chunks_pass_through():
    result = refine_document(
        TEXT,
        [
            ChunkProgram(0, 1, None, oversized=True),
            ChunkProgram(1, 1, "remove_lines(1, 1)", oversized=True),
            ChunkProgram(2, 1, None),
            # lines 3 and 4 are in no chunk
            ChunkProgram(5, 1, "remove_lines(5, 5)"),
        ],
    )
    assert result.text == "\n".join(LINES[:5])
    assert result.statuses == {"oversized": 2, "no_program": 1, "ok": 1}


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (1, 2), (2, 9), (2, -1), (10**20, 1)])
def test_a_chunk_in_the_wrong_place_is_counted_and_ignored(first, count):
    chunks = [ChunkProgram(0, 2, "remove_lines(0, 0)"), ChunkProgram(first, count, "remove_lines(2, 2)")]
    result = refine_document(TEXT, chunks)
    assert (result.text, result.statuses) == ("\n".join(LINES[1:]), {"ok": 1, "misplaced": 1})


def test_drop_executes_nothing():
    result = refine_document(TEXT, [ChunkProgram(0, 6, "remove_lines(0, 0)")], drop=True)
    assert (result.text, result.outcome, result.reason) == (None, "dropped", "doc program")
    assert (result.statuses, result.words_in, result.words_out) == ({}, 42, 0)


def remove_words(count, total):
    """A page of one word a line, the first `count` removed."""
    return "\n".join(["word"] * total), [ChunkProgram(0, total, f"remove_lines(0, {count - 1})")]


@pytest.mark.parametrize("total", [20, 40, 60, 100, 140, 180, 220, 260, 300, 1000])
def test_95_percent_removed_drops_and_less_does_not(total):
    checks = DocumentChecks(min_words=0)
    at = total * 95 // 100
    assert refine_document(*remove_words(at, total), checks=checks).reason == "removed too much"
    assert refine_document(*remove_words(at - 1, total), checks=checks).outcome == "edited"


def test_fewer_than_eleven_words_drop_only_an_edited_document():
    assert refine_document(*remove_words(9, 20)).outcome == "edited"
    dropped = refine_document(*remove_words(10, 20))
    assert (dropped.text, dropped.outcome, dropped.reason) == (None, "dropped", "too few words")
    assert (dropped.words_in, dropped.words_out, dropped.removed_lines) == (20, 10, 10)
    assert refine_document("three word page", [ChunkProgram(0, 1, "keep_chunk()")]).outcome == "kept"


def test_checks_are_configurable():
    assert refine_document(*remove_words(10, 20), checks=DocumentChecks(min_words=10)).outcome == "edited"
    assert refine_document(*remove_words(5, 20), checks=DocumentChecks(max_removed=0.25)).reason == "removed too much"
    assert refine_document(*remove_words(20, 20), checks=OFF).text == ""


def test_a_page_without_words_never_divides_by_zero():
    edited = refine_document(" \n\t", [ChunkProgram(0, 2, "remove_lines(0, 0)")])
    assert (edited.outcome, edited.reason) == ("dropped", "too few words")


def test_deletion_only():
    program = ChunkProgram(0, 6, "remove_lines(0, 0)\nnormalize('tea')")
    assert refine_document(TEXT, [program], profile="deletion_only").text == "\n".join(LINES[1:])


def test_prox_v1_takes_the_document_as_one():
    chunks = [
        ChunkProgram(0, 3, "remove_lines(start=0, end=0)"),
        ChunkProgram(3, 3, 'normalize(source_str="tea")', truncated=True),
    ]
    result = refine_document(TEXT, chunks, profile="prox_v1")
    assert result.text == "\n".join(LINES[1:]).replace("tea", "")
    assert (result.outcome, result.removed, result.replaced) == ("edited", ((0, 0),), 6)
    bad = [*chunks, ChunkProgram(6, 0, "remove_lines(1, 1)\nremove_lines(2, 2)")]
    reverted = refine_document(TEXT, bad, profile="prox_v1")
    assert (reverted.text, reverted.outcome, reverted.removed, reverted.statuses) == (TEXT, "kept", (), {"partial": 1})
    few = refine_document("three word page", [], profile="prox_v1")
    assert (few.text, few.reason) == (None, "too few words")
    assert refine_document(" ", [], profile="prox_v1").reason == "no words"


def test_spans_replaced_and_removed_are_in_the_document_s_own_lines():
    text = "Read more: a story\nfoo  bar\nRead more: another\nRead more: the end of it"
    chunks = [
        ChunkProgram(0, 2, 'normalize("Read more: ")\nnormalize("o  b", "o b")'),
        ChunkProgram(2, 2, 'remove_lines(2, 2)\nnormalize("more", "most")'),
    ]
    result = refine_document(text, chunks)
    assert result.removed == ((2, 2),)
    expected = (Replacement(0, 0, 11, ""), Replacement(1, 2, 6, "o b"), Replacement(2, 5, 9, "most"))
    assert result.replacements == (*expected, Replacement(3, 5, 9, "most"))
    assert refine_document(text.encode(), chunks).replacements == result.replacements
