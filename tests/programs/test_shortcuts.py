"""Shortcuts taken for speed give what the long way gives."""

from hypothesis import given
from hypothesis import strategies as st

from prox_hpc.programs import (
    Caps,
    ChunkProgram,
    DocumentChecks,
    Normalize,
    RemoveLines,
    execute,
    parse,
    refine_document,
    render,
)
from prox_hpc.programs.parse import _plain_operations

numbers = st.integers(-1, 9) | st.integers(0, 10**12)
strings = st.text(alphabet='ab ,)=("\\\n\r\0\u2028é', max_size=5)
operations = st.builds(RemoveLines, numbers, numbers) | st.builds(Normalize, strings, strings)
keywords = st.builds("remove_lines(start={}, end={})".format, numbers, numbers) | st.builds(
    'normalize(source_str="{}", target_str="{}")'.format, strings, strings
)
lines = st.one_of(
    operations.map(lambda operation: render([operation])),
    keywords,
    st.sampled_from(["keep_chunk()", "untouch_doc()", "", "#", "remove_lines(0, end=1)", "remove_lines(start=0, 1)"]),
)
programs = st.lists(lines, max_size=6).map("\n".join)


@given(programs, st.integers(1, 12), st.integers(1, 4))
def test_plain_calls_are_read_as_by_the_parser(text: str, digits: int, most: int) -> None:
    caps = Caps(integer_digits=digits, operations=most)
    whole = parse(text, "chunk", caps=caps)
    by_call = parse(f"{text}\n#", "chunk", caps=caps)  # a comment is not plain
    assert (whole.operations, whole.status, whole.reason) == (by_call.operations, by_call.status, by_call.reason)


def test_the_shortcut_is_taken() -> None:
    text = 'remove_lines(0, 12)\nremove_lines(start=3, end=4)\nnormalize("a)b,=", "")\nnormalize(source_str="x")\n'
    text += "keep_chunk()\n"
    assert len(_plain_operations(text, "chunk", Caps())) == 5
    for other in (f"{text}#", f" {text}", text.replace("\n", ";"), text.replace('"', "'")):
        assert _plain_operations(other, "chunk", Caps()) == ()


texts = st.lists(st.text(alphabet="ab  \t\u00a0", max_size=9), min_size=1, max_size=12).map("\n".join)
edits = st.lists(
    st.builds(RemoveLines, st.integers(0, 11), st.integers(0, 11))
    | st.builds(Normalize, st.text("ab \t", min_size=1, max_size=3), st.text("ab ", max_size=4)),
    min_size=1,
    max_size=6,
).map(render)


@given(texts, edits, st.floats(0.05, 1.2), st.integers(0, 30))
def test_documents_are_checked_as_if_all_words_were_counted(
    text: str, program: str, max_removed: float, min_words: int
) -> None:
    count = text.count("\n") + 1
    checks = DocumentChecks(max_removed, min_words)
    result = refine_document(text, [ChunkProgram(0, count, program)], checks=checks)
    before, after = len(text.split()), len(result.after.split())
    removed_too_much = before > 0 and (before - after) / before >= max_removed - 1e-12
    expected = "removed too much" if removed_too_much else "too few words" if after < min_words else None
    assert result.reason == (None if result.after == text else expected)
    assert (result.words_in, result.words_out) == (before, after)


@given(texts, edits)
def test_a_document_of_one_chunk_is_executed_as_any_other(text: str, program: str) -> None:
    lines = text.split("\n")
    off = DocumentChecks(max_removed=2, min_words=0)
    whole = refine_document(text, [ChunkProgram(0, len(lines), program)], checks=off)
    alone = execute(parse(program, "chunk"), lines)
    assert whole.after == "\n".join(alone.lines)
    assert (whole.removed, whole.replaced, whole.operations) == (alone.removed, alone.replaced, alone.outcomes)
    empty = ChunkProgram(len(lines), 0, None)  # a second chunk, which changes nothing
    by_chunk = refine_document(text, [ChunkProgram(0, len(lines), program), empty], checks=off)
    assert (by_chunk.after, by_chunk.removed, by_chunk.replaced) == (whole.after, whole.removed, whole.replaced)
