"""The program language against a second, plain implementation on Python's `ast` (`tools/ast_programs.py`).

Both must agree on status, operations, outcomes, reasons, text and spans, alone and as a document, for whatever a
refiner may write: canonical programs, the released refiners' style, and both with something wrong in them. The two
differences that are known stand, with their reasons, at `check_against_ast`.
"""

import ast_programs
import pytest
from fuzz_programs import CHECKS_OFF, Case, check_against_ast, compare_documents
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prox_hpc.programs import (
    Caps,
    ChunkProgram,
    DocumentChecks,
    KeepChunk,
    Normalize,
    RemoveLines,
    parse,
    refine_document,
    render,
)

# Few letters and many odd ones, so that sources are found, words vanish and joined lines make new words.
LETTERS = "aab  \t\r\\\"'#;\x1c\x85\u00a0\u2028é٣\ud800"
lines = st.text(alphabet=LETTERS, max_size=8) | st.sampled_from(["tea and cake", "Read more: http://a.b/?c=d", ""])
texts = st.lists(lines, min_size=1, max_size=12).map("\n".join)

numbers = st.integers(-1, 12)
strings = st.sampled_from(["a", "b", "ab", "aa", " ", "tea", "http://a.b/?c=d", "", "é", "\\", '"']) | lines
canonical = st.lists(
    st.builds(RemoveLines, numbers, numbers) | st.builds(Normalize, strings, strings) | st.just(KeepChunk()),
    min_size=1,
    max_size=6,
).map(render)

arguments = st.sampled_from(["0", "start=0", "end=0", "line_end=1", "'a'", "source_str='a'", "target_str='b'", "x=1"])
ESCAPES = ["\\777", "\\x41", "\\101", "\\u00e9", "\\N{BULLET}", "\\8", "\\d", "\\x4", "\\ud800", "\\\n", "\\'", '\\"']
escaped = st.lists(st.sampled_from([*ESCAPES, "a", "b"]), min_size=1, max_size=3).map("".join)
released_calls = st.one_of(
    st.builds("remove_lines(start={}, end={})".format, numbers, numbers),
    st.builds("remove_lines(line_start={}, line_end={})".format, numbers, numbers),
    st.builds("remove_lines({}, end={})".format, numbers, numbers),
    st.builds('normalize(source_str="{}", target_str="{}")'.format, lines, lines),
    st.builds("normalize('{}')".format, lines | escaped),
    st.builds("normalize('a', \"{}\")".format, escaped),
    st.builds("{}({}, {})".format, st.sampled_from(["remove_lines", "normalize"]), arguments, arguments),
    st.builds("normalize(target_str='{}', source_str='{}')".format, strings, strings),
    st.sampled_from(["untouch_doc()", "# the menu", "keep_doc()", "drop_doc()", "keep_chunk ( )", ""]),
)
separators = st.sampled_from(["\n", "\n", ";", "\r\n", "\n\n  ", " # why\n", ";;", " "])
released = st.builds(str.join, separators, st.lists(released_calls, max_size=6))
doc_calls = st.sampled_from(["keep_doc()", "drop_doc()", "untouch_doc()", "keep_doc()", "drop_doc", "drop_doc(0)"])
doc_programs = st.builds(str.join, separators, st.lists(doc_calls, min_size=1, max_size=3))


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A program with up to three characters or words deleted, put in or doubled, perhaps fenced, perhaps cut."""
    program = draw(canonical | released | doc_programs)
    fences = [
        ("", ""),
        ("```python\n", "\n```"),
        ("```\n", ""),
        (" # x\n", " # y"),
        ("```\n", "\n``` x"),
        ("Sure:\n", ""),
    ]
    before, after = draw(st.sampled_from(fences))
    program = before + program + after
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(program)))
        cut = draw(st.integers(0, 3))
        piece = draw(
            st.sampled_from([*LETTERS, *"()[],=`+-.*09", "\n", "\0", "\\", "None", "end", "start=", "'''", "f'"])
        )
        program = draw(
            st.sampled_from([program[:at] + program[at + cut :], program[:at] + piece + program[at:]])
            | st.just(program[: at + cut] + program[at:])
        )
    return program[: draw(st.integers(0, len(program)))] if draw(st.booleans()) else program


@settings(max_examples=300, deadline=None)
@given(canonical | released | doc_programs | mutated(), texts, st.integers(0, 3))
@example("remove_lines(0, 1", "a\nb", 0)
@example("remove_lines(line_", "a\nb", 0)
@example("``` # x\nkeep_chunk()\n```", "a", 0)
@example("```\nkeep_chunk()\n``` # x", "a", 0)
@example("```\nkeep_chunk()\n``` keep_chunk()", "a", 0)
@example("```\nkeep_chunk()\n``", "a", 0)
@example("keep_chunk()\n" * 257, "a", 0)
@example("remove_lines(start=0, 0)", "a", 0)
@example("remove_lines(0, start=0)", "a", 0)
@example("keep_chunk()\rkeep_chunk()", "a", 0)
@example("(keep_chunk())\nremove_lines((0), 0)", "a", 0)
@example("keep_chunk(); \\\nkeep_chunk()", "a", 0)
@example("remove_lines(007, " + "9" * 5000 + ")", "a", 0)
@example("normalize('a' 'b')\nnormalize(u'a')", "ab", 0)
@example("normalize('\ud800')\nnormalize('\\\ud800')", "\ud800 \\\ud800", 0)
@example("normalize('a', 'aaaa')\n" * 12, "a" * 90, 0)
def test_both_read_and_execute_alike(program, text, first_line):
    check_against_ast(Case(program, text, first_line))


small_caps = st.builds(
    Caps,
    program_bytes=st.sampled_from([20, 60, 32_768]),
    operations=st.sampled_from([1, 2, 256]),
    string_chars=st.sampled_from([2, 2_000]),
    integer_digits=st.sampled_from([1, 18]),
    growth_chars=st.integers(0, 9),
    growth_ratio=st.sampled_from([0, 0.25, 3]),
)


@st.composite
def chunked(draw: st.DrawFn) -> tuple[str, list[ChunkProgram]]:
    """A document and its chunks in order, with lines between them and now and then one that is misplaced."""
    text = draw(texts)
    if draw(st.booleans()):  # most documents are one chunk
        return text, [
            ChunkProgram(0, text.count("\n") + 1, draw(canonical | released | mutated()), draw(st.booleans()))
        ]
    chunks, position = [], 0
    for _ in range(draw(st.integers(0, 4))):
        first = position + draw(st.sampled_from([0, 0, 0, 0, 1, -1, 9]))
        count = draw(st.sampled_from([1, 2, 3, 4, 20, 0, -1]))
        program = draw(st.none() | canonical | canonical | released | mutated())
        chunks.append(
            ChunkProgram(first, count, program, draw(st.booleans()), draw(st.sampled_from([False] * 5 + [True])))
        )
        position = max(position, first + count)
    return text, chunks


@settings(max_examples=300, deadline=None)
@given(chunked(), st.sampled_from(["v1", "deletion_only"]), st.booleans(), st.just(Caps()) | small_caps)
def test_both_refine_documents_alike(document, profile, drop, caps):
    text, chunks = document
    options = {"drop": drop, "profile": profile, "caps": caps}
    for checks in (CHECKS_OFF, DocumentChecks(), DocumentChecks(0.5, 3)):
        ours = refine_document(text, chunks, checks=checks, **options)
        compare_documents(ours, ast_programs.refine_document(text, chunks, checks=checks, **options))


# Two words become one, whether the text gets shorter, longer, or neither.
joining = st.builds(
    Normalize, st.sampled_from(["a ", " a", "b ", "a\u2028", "a"]), st.sampled_from(["", "a", "b", "aaa", "b b b"])
)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b ", " a", "ab", "\u2028", "\x1c", "\n", "a\n", " "]), min_size=1, max_size=60),
    st.lists(joining | st.builds(Normalize, strings, strings), max_size=2),
    st.lists(st.integers(0, 40), max_size=2),
)
def test_both_drop_the_same_documents(pieces, replacements, removed):
    """Limits just above, at and below the words that are left: the checks count them, whatever they know without."""
    text = "".join(pieces)
    count = text.count("\n") + 1
    program = render([*replacements, *(RemoveLines(line % count, line % count) for line in removed)])
    chunks = [ChunkProgram(0, count, program)]
    left = ast_programs.refine_document(text, chunks, checks=CHECKS_OFF)
    share = 1 - left.words_out / left.words_in if left.words_in else 0.5
    for most in (share - 0.01, share, share + 0.01, 2):
        for least in (0, left.words_out, left.words_out + 1):
            checks = DocumentChecks(most, least)
            ours = refine_document(text, chunks, checks=checks)
            compare_documents(ours, ast_programs.refine_document(text, chunks, checks=checks))


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        ("remove_lines(start=0, end=3)", (RemoveLines(0, 3),)),
        ("normalize('it\\'s', \"\")", (Normalize("it's", ""),)),
        ("```\nkeep_chunk();\n```", (KeepChunk(),)),
        ("  remove_lines(1,\n2)", (RemoveLines(1, 2),)),
        ("normalize('a' 'b')", ()),
        ("remove_lines(0x1, 2)", ()),
        ("__import__('os')", ()),
    ],
)
def test_the_oracle_reads_programs(text, operations):
    """Agreement means something only if the oracle is no stub."""
    assert ast_programs.parse(text, "chunk").operations == operations == parse(text, "chunk").operations
