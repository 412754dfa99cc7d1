"""Gold programs: from keep flags and whole-document programs to canonical chunk programs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prox_hpc.programs import (
    Caps,
    Normalize,
    RemoveLines,
    clip,
    execute,
    parse,
    program_from_keep,
    removed_lines,
    render,
    split_chunks,
)


@pytest.mark.parametrize(
    ("flags", "program"),
    [
        ("", "keep_chunk()"),
        ("++", "keep_chunk()"),
        ("-", "remove_lines(0, 0)"),
        ("--+-", "remove_lines(0, 1)\nremove_lines(3, 3)"),
        ("+--+", "remove_lines(1, 2)"),
    ],
)
def test_program_from_keep(flags, program):
    assert program_from_keep([flag == "+" for flag in flags]) == program


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 2000))
def test_program_from_keep_removes_just_those_lines(keep, first_line):
    program = parse(program_from_keep(keep, first_line), "chunk")
    expected = {number for number, kept in enumerate(keep, first_line) if not kept}
    assert removed_lines(program, len(keep), first_line) == expected
    assert program.status == "ok"


def test_removed_lines_refuses_as_execution_does():
    program = parse("remove_lines(0, 1)\nremove_lines(1, 2)\nremove_lines(4, 9)\nremove_lines(3, 2)", "chunk")
    assert removed_lines(program, 5) == {0, 1, 2}
    assert removed_lines(parse("rubbish", "chunk"), 5) == set()
    assert removed_lines(parse("remove_lines(0, 10000000000000)", "chunk"), 5) == set()


def test_clip_takes_what_concerns_the_chunk():
    text = "menu\nmenu\ntea (hot)\ncoffee\nfooter"
    chunks = split_chunks(text, lambda texts: [1] * len(texts), 2)
    program = parse("remove_lines(1, 2)\nnormalize('(hot)')\nremove_lines(4, 4)\nnormalize('zebra')", "chunk")
    assert [clip(program, chunk) for chunk in chunks] == [
        "remove_lines(1, 1)",
        'remove_lines(2, 2)\nnormalize("(hot)")',
        "remove_lines(4, 4)",
    ]
    assert clip(parse("keep_chunk()", "chunk"), chunks[0]) == "keep_chunk()"
    assert clip(parse("rubbish", "chunk"), chunks[0]) == "keep_chunk()"
    assert clip(parse("remove_lines(2, 1)\nremove_lines(-1, 3)\nnormalize(' ')", "chunk"), chunks[0]) == "keep_chunk()"


def test_clip_follows_the_order_of_normalisations():
    (chunk,) = split_chunks("ab", lambda texts: [1])
    program = parse("normalize('a', 'x')\nnormalize('a')\nnormalize('xb', 'y')", "chunk")
    assert clip(program, chunk) == 'normalize("a", "x")\nnormalize("xb", "y")'


operations = st.one_of(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: RemoveLines(min(pair), max(pair))),
    st.builds(Normalize, st.text(alphabet="ab", min_size=1, max_size=2), st.text(alphabet="bc", max_size=2)),
)


@given(st.lists(st.text(alphabet="ab", max_size=5), min_size=10, max_size=14), st.lists(operations), st.integers(1, 5))
def test_clipped_programs_do_what_the_whole_one_does(lines, edits, limit):
    caps = Caps(growth_ratio=100)  # growth is bounded by chunk, which a whole document cannot know
    program = parse(render(edits) or "keep_chunk()", "chunk")
    whole = execute(program, lines, caps=caps)
    pieces = []
    for chunk in split_chunks("\n".join(lines), lambda texts: [1] * len(texts), limit):
        result = execute(
            parse(clip(program, chunk, caps), "chunk"), chunk.lines, first_line=chunk.first_line, caps=caps
        )
        assert result.status == "ok"
        pieces.extend(result.lines)
    assert tuple(pieces) == whole.lines
