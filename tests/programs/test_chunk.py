"""Numbering and cutting: what the refiner sees, and that no line is lost or doubled."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prox_hpc.programs import (
    Chunk,
    ChunkProgram,
    DocumentChecks,
    execute,
    number_lines,
    parse,
    refine_document,
    split_chunks,
)


def words(texts):
    """A tokenizer for tests: one token a word, one for the number and one for the line feed."""
    return [len(text.split()) + 1 for text in texts]


def test_lines_are_numbered_from_zero_with_three_digits():
    assert number_lines(["a", "", " b"]) == "[000]a\n[001]\n[002] b"
    assert number_lines(["a", "b"], 999) == "[999]a\n[1000]b"
    assert number_lines([]) == ""


def test_one_call_for_a_document_with_the_numbered_lines_and_their_line_feeds():
    calls = []

    def count(texts):
        calls.append(texts)
        return [1] * len(texts)

    split_chunks("a\nb\n", count)
    assert calls == [["[000]a\n", "[001]b\n", "[002]\n"]]


def test_greedy_lines_up_to_the_limit():
    text = "\n".join(["x"] * 5)  # two tokens a line
    assert split_chunks(text, words, 4) == [
        Chunk(0, ("x", "x"), 4, False),
        Chunk(2, ("x", "x"), 4, False),
        Chunk(4, ("x",), 2, False),
    ]
    assert len(split_chunks(text, words, 10)) == 1
    assert split_chunks(text, words, 4)[1].numbered == "[002]x\n[003]x"


@pytest.mark.parametrize("place", range(4))
def test_a_longer_line_is_its_own_oversized_chunk_wherever_it_is(place):
    lines = ["a"] * 3
    lines.insert(place, "long " * 9)
    chunks = split_chunks("\n".join(lines), words, 6)
    assert [line for chunk in chunks for line in chunk.lines] == lines
    assert [(chunk.first_line, chunk.lines) for chunk in chunks if chunk.oversized] == [(place, ("long " * 9,))]
    before, after = (
        [chunk for chunk in chunks if not chunk.oversized and chunk.first_line < place],
        [chunk for chunk in chunks if chunk.first_line > place],
    )
    assert ([len(chunk.lines) for chunk in before], [len(chunk.lines) for chunk in after]) == (
        [place] if place else [],
        [3 - place] if place < 3 else [],
    )


def test_a_longer_line_is_its_own_oversized_chunk():
    text = "a\n" + "long " * 9 + "\nb\n" + "long " * 8
    assert [(chunk.first_line, len(chunk.lines), chunk.oversized) for chunk in split_chunks(text, words, 6)] == [
        (0, 1, False),
        (1, 1, True),
        (2, 1, False),
        (3, 1, True),
    ]


def test_empty_text_is_one_empty_line():
    assert split_chunks("", words) == [Chunk(0, ("",), 2, False)]
    assert split_chunks("", words, 1) == [Chunk(0, ("",), 2, True)]


def test_line_feeds_alone_are_lines():
    assert split_chunks("\n\n", words) == [Chunk(0, ("", "", ""), 6, False)]
    assert split_chunks("a\n", words, 2) == [Chunk(0, ("a",), 2, False), Chunk(1, ("",), 2, False)]
    assert split_chunks("\na", words)[0].numbered == "[000]\n[001]a"


def test_only_line_feeds_separate_lines():
    assert split_chunks("a\r\nb\u2028c\x85d\v", words)[0].lines == ("a\r", "b\u2028c\x85d\v")


def test_lines_that_count_nothing_are_one_chunk():
    def nothing(texts):
        return [0] * len(texts)

    assert split_chunks("a\nb\nc", nothing, 1) == [Chunk(0, ("a", "b", "c"), 0, False)]
    assert len(split_chunks("a\nb\nc", nothing, 0)) == 1


def test_with_a_limit_of_one_token_every_line_is_a_chunk():
    chunks = split_chunks("a\nb c\n", lambda texts: [1, 2, 1], 1)
    assert [(chunk.first_line, chunk.tokens, chunk.oversized) for chunk in chunks] == [
        (0, 1, False),
        (1, 2, True),
        (2, 1, False),
    ]


def test_very_many_lines():
    text = "\n".join(map(str, range(100_000)))
    chunks = split_chunks(text, words, 1_000)
    assert len(chunks) == 200
    assert chunks[-1].numbered.endswith("[99999]99999")
    assert "\n".join(line for chunk in chunks for line in chunk.lines) == text


def test_a_tokenizer_that_miscounts_is_an_error():
    with pytest.raises(ValueError, match="1 counts of tokens for 2 lines"):
        split_chunks("a\nb", lambda texts: [1])


@given(st.text(alphabet="ab \n\r", max_size=60), st.integers(1, 12))
def test_chunks_cover_the_document_and_keep_the_limit(text, limit):
    chunks = split_chunks(text, words, limit)
    assert "\n".join(line for chunk in chunks for line in chunk.lines) == text
    position = 0
    for chunk in chunks:
        assert (chunk.first_line, chunk.oversized) == (position, chunk.tokens > limit)
        assert not chunk.oversized or len(chunk.lines) == 1
        position += len(chunk.lines)
    for before, after in itertools.pairwise(chunks):
        first = words([number_lines(after.lines[:1], after.first_line)])[0]
        assert before.tokens + first > limit  # no chunk could have taken one more line


PROGRAMS = [
    "keep_chunk()",
    "remove_lines({0}, {0})",
    "remove_lines({0}, {1})",
    "normalize('a', 'b')",
    "rubbish",
    "remove_lines(0, 2",
]


@given(st.text(alphabet="ab \n\r", max_size=60), st.integers(1, 12), st.data())
def test_a_document_is_its_chunks_each_executed_by_itself(text, limit, data):
    written, alone = [], []
    for chunk in split_chunks(text, words, limit):
        last = chunk.first_line + len(chunk.lines) - 1
        program = data.draw(st.sampled_from(PROGRAMS)).format(chunk.first_line, last)
        truncated = data.draw(st.booleans())
        written.append(ChunkProgram(chunk.first_line, len(chunk.lines), program, truncated, chunk.oversized))
        if chunk.oversized:
            alone += chunk.lines
        else:
            parsed = parse(program, "chunk", truncated=truncated)
            alone += execute(parsed, chunk.lines, first_line=chunk.first_line).lines
    together = refine_document(text, written, checks=DocumentChecks(max_removed=2, min_words=0))
    assert together.text == "\n".join(alone)
