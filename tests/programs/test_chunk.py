"""Numbering and cutting: what the refiner sees, and that no line is lost or doubled."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prox_hpc.programs import Chunk, number_lines, split_chunks


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


def test_a_tokenizer_that_miscounts_is_an_error():
    with pytest.raises(ValueError, match="zip"):
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
