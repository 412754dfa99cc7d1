"""Why the released executor makes another document of the same programs: each cause on its own, and no difference
without one.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prox_hpc.programs import Caps, ChunkProgram, DocumentChecks
from prox_hpc.programs.compare import Tally, compare_document
from prox_hpc.programs.readings import MISREADINGS, Cause

LINES = [f"line {number} says: the cat, (sat) on http://a.b/?q=1&r=2 isn't" for number in range(6)]
TEXT = "\n".join(LINES)
ALL = len(LINES)
OFF = DocumentChecks(max_removed=2, min_words=0)


def compare(*programs, text=TEXT, truncated=False, **options):
    """Two chunks of three lines if there are two programs, else one of all lines."""
    count = text.count("\n") + 1
    size = count // max(1, len(programs))
    chunks = [ChunkProgram(number * size, size, program, truncated) for number, program in enumerate(programs)]
    return compare_document(text, chunks, **options)


def without(*numbers):
    return "\n".join(line for number, line in enumerate(LINES) if number not in numbers)


# The one cause, the programs, what v1 makes of them, what the released executor makes of them.
REMOVE = "remove_lines(start=0, end=0)"
ONE_CAUSE = [
    ("positional arguments", ["remove_lines(0, 0)"], without(0), TEXT),
    ("positional arguments", ['normalize("cat")'], TEXT.replace("cat", ""), TEXT),
    ("keywords in another order", ["remove_lines(end=1, start=0)"], without(0, 1), TEXT),
    (
        "keywords in another order",
        ['normalize(target_str="dog", source_str="cat")'],
        TEXT.replace("cat", "dog"),
        TEXT,
    ),
    ("trailing comma", ['normalize(source_str="cat",)'], TEXT.replace("cat", ""), TEXT),
    ("comma in a string", ['normalize(source_str="the cat, ")'], TEXT.replace("the cat, ", ""), TEXT),
    (
        "parenthesis in a string",
        ['normalize(source_str="(sat) on")'],
        TEXT.replace("(sat) on", ""),
        TEXT.replace("(sat", ""),
    ),
    (
        "equals sign in a string",
        ['normalize(source_str="http://a.b/?q=1")'],
        TEXT.replace("http://a.b/?q=1", ""),
        TEXT.replace("http://a.b/?q", ""),
    ),
    ("single quotes", ["normalize(source_str='cat')"], TEXT.replace("cat", ""), TEXT),
    ("escape sequence", [r'normalize(source_str="\x63at")'], TEXT.replace("cat", ""), TEXT),
    ("blanks around a string", ['normalize(source_str= "cat")'], TEXT.replace("cat", ""), TEXT),
    ("blanks around a string", ['normalize(source_str="cat" )'], TEXT.replace("cat", ""), TEXT),
    ("blanks before the call", ["keep_chunk()\n remove_lines(start=0, end=0)"], without(0), TEXT),
    ("calls on one line", [f"keep_chunk(); {REMOVE}"], without(0), TEXT),
    ("calls on one line", [f"{REMOVE}; remove_lines(start=1, end=1)"], without(0, 1), without(0)),
    ("call over several lines", ["remove_lines(\n  start=0, end=0)"], without(0), TEXT),
    (
        "call over several lines",
        [f'{REMOVE}\nnormalize(source_str="c\\\nat")'],
        without(0).replace("cat", ""),
        without(0).replace("c", ""),
    ),
    ("all=True", ["remove_lines(all=True)"], TEXT, None),
    ("all=True", [f"{REMOVE}  # all=True"], without(0), None),
    ("call cut off", ["remove_lines(start=0, end=12"], TEXT, without(0, 1)),
    ("malformed program executed in part", [f'{REMOVE}\nnormalize(source_str="'], TEXT, without(0)),
    ("malformed program executed in part", [f"{REMOVE}\nThat is all."], TEXT, without(0)),
    ("program beyond a cap", [REMOVE + "\n#" + "x" * 140_000], TEXT, without(0)),
    ("line beyond the end", ["remove_lines(start=4, end=40)"], TEXT, without(4, 5)),
    ("integer beyond a cap", [f"remove_lines(start=4, end={'9' * 30})"], TEXT, without(4, 5)),
    ("line outside the chunk", ["keep_chunk()", REMOVE], TEXT, without(0)),
    ("negative line number", ["remove_lines(start=-2, end=0)"], TEXT, without(0)),
    (
        "replaced outside the chunk",
        ['normalize(source_str="cat")', "keep_chunk()"],
        "\n".join([*(line.replace("cat", "") for line in LINES[:3]), *LINES[3:]]),
        TEXT.replace("cat", ""),
    ),
    ("blank source", ['normalize(source_str="  ")'], "a  b " * 11, "ab " * 11),
    (
        "string or growth beyond a cap",
        ['normalize(source_str="i", target_str="' + "x" * 300 + '")'],
        TEXT,
        TEXT.replace("i", "x" * 300),
    ),
]


@pytest.mark.parametrize(("cause", "programs", "v1", "prox_v1"), ONE_CAUSE, ids=[row[0] for row in ONE_CAUSE])
def test_one_cause(cause, programs, v1, prox_v1):
    text = v1 if cause == "blank source" else TEXT
    found = compare(*programs, text=text, truncated=cause == "call cut off")
    assert found.differ
    assert found.causes == (cause,)
    assert found.v1.text == v1
    assert found.prox_v1.text == prox_v1
    assert [call.causes for call in found.calls] == [(cause,)] * len(found.calls) != []


def test_one_cause_that_belongs_to_the_document():
    bad = "remove_lines(start=40, end=41)\nremove_lines(start=50, end=51)"
    reverted = compare(f"{REMOVE}\n{bad}")
    assert reverted.causes == ("too many errors: reverted",)
    assert (reverted.v1.text, reverted.prox_v1.text) == (without(0), TEXT)
    assert reverted.prox_v1_reason == "too many errors"
    assert "\n".join(call.text for call in reverted.calls) == bad
    few = compare("keep_chunk()", text="three word page")
    assert (few.causes, few.prox_v1.text) == (("too few words in an untouched document",), None)
    assert compare("keep_chunk()", text=" \n").causes == ("text without words",)
    for program in ("keep_doc()  # do not drop", "a dropdown menu"):
        dropped = compare(doc_program=program)
        assert (dropped.causes, dropped.v1.text, dropped.prox_v1.text) == (("drop in the program text",), TEXT, None)
    rounded = compare("remove_lines(start=1, end=9)", text="\n".join(["word"] * 10), checks=DocumentChecks(0.9, 0))
    assert rounded.causes == ("rounding in the document checks",)


def test_reverted_is_the_cause_only_if_the_calls_themselves_are_not():
    """Two positional calls revert the document, but without the revert nothing would have been removed either."""
    assert compare("remove_lines(0, 0)\nremove_lines(2, 2)").causes == ("positional arguments",)
    mixed = compare(f"{REMOVE}\nremove_lines(20, 20)\nremove_lines(30, 30)")
    assert mixed.causes == ("too many errors: reverted",)
    assert [call.text for call in mixed.calls] == ["remove_lines(20, 20)", "remove_lines(30, 30)"]


def test_causes_are_no_more_than_needed():
    """The second chunk's call finds nothing, since the first one's has replaced everywhere; the result is the same."""
    call = 'normalize(source_str="cat", target_str="dog")'
    assert not compare(call, call).differ
    assert compare(call, f"{call}\nremove_lines(3, 3)").causes == ("positional arguments",)
    harmless = compare('normalize(source_str="x, y")\nremove_lines(start=30, end=30)')
    assert (harmless.differ, harmless.causes, harmless.calls) == (False, (), ())


def test_several_causes_of_one_call():
    found = compare("normalize('(sat) on', 'a, b')")
    assert found.causes == (
        "positional arguments",
        "comma in a string",
        "parenthesis in a string",
        "single quotes",
    )
    (call,) = found.calls
    assert (call.chunk, call.line, call.v1, call.prox_v1) == (0, 0, "replaced 6", "1 error")


def test_what_each_executor_did():
    (cut,) = compare("keep_chunk()", "remove_lines(start=0, end=12", truncated=True).calls
    assert (cut.chunk, cut.line, cut.text) == (3, 0, "remove_lines(start=0, end=12")
    assert cut.v1 == "nothing (truncated: last call cut off)"
    assert cut.prox_v1 == "removed lines 0 to 1; 1 error"
    (equals,) = compare('normalize(source_str="?q=1")').calls
    assert (equals.v1, equals.prox_v1) == ("replaced 6", "replaced 6 '?q' by ''")


def test_a_document_the_doc_stage_drops_is_the_same_for_both():
    for options in ({"drop": True}, {"doc_program": "drop_doc()"}):
        found = compare("remove_lines(0, 0)", **options)
        assert (found.differ, found.causes, found.well_formed) == (False, (), ())


def test_well_formed_programs_that_are_misread():
    programs = [REMOVE, "remove_lines(1, 1)", "keep_chunk()", "remove_lines(9, 9)", "rubbish", "normalize('cat')"]
    found = compare(*programs)
    # Of these, chunks 3 and 4 are not "ok": a line outside, free text.
    assert found.well_formed == ((), ("positional arguments",), (), ("positional arguments", "single quotes"))
    tally = Tally()
    tally.add(found)
    tally.add(compare("keep_chunk()"))
    assert tally.summary() == {
        "documents": 2,
        "differ": 1,
        "reverted": 1,
        "causes": {"positional arguments": 1, "single quotes": 1},
        "well_formed": 5,
        "misread": 2,
        "misread_share": 0.4,
        "misreadings": {"positional arguments": 2, "single quotes": 1},
    }


def test_oversized_and_misplaced_chunks():
    for chunk in (ChunkProgram(0, ALL, REMOVE, oversized=True), ChunkProgram(3, 9, REMOVE)):
        found = compare_document(TEXT, [chunk])
        assert (found.causes, found.prox_v1.text) == (("program of an oversized or misplaced chunk",), without(0))


def test_a_hostile_program_over_many_lines_is_told_as_one():
    program = "remove_lines(" + "\n" * 2_000 + "start=0, end=0)"
    assert compare(program).causes == ("call over several lines",)


ARGUMENTS = [
    "0",
    "1",
    "2",
    "5",
    "-1",
    "9",
    "9" * 30,
    '"cat"',
    "'the '",
    '"a, b"',
    '"(sat) on"',
    r'"\x63at"',
    '" "',
    '""',
]
KEYWORDS = ["", "start=", "end=", "line_start=", "line_end=", "source_str=", "target_str=", "source_str= ", "x="]
arguments = st.tuples(st.sampled_from(KEYWORDS), st.sampled_from(ARGUMENTS)).map("".join)
any_calls = st.builds(
    lambda name, values, end: f"{name}({', '.join(values)}{end}",
    st.sampled_from(["remove_lines", "normalize", " normalize", "\tremove_lines", "keep_chunk", "drop_doc"]),
    st.lists(arguments, max_size=3),
    st.sampled_from([")", ")", ")", ")", ",)", " )", "\n)", "", ");"]),
)
good_calls = st.one_of(
    st.builds("remove_lines({}{}, {}{})".format, *[st.sampled_from(["", "start="]), st.integers(0, 7)] * 2).map(
        lambda call: call.replace(", start=", ", end=")
    ),
    st.builds(
        "normalize({}{})".format, st.sampled_from(["", "source_str=", "source_str= "]), st.sampled_from(ARGUMENTS[7:])
    ),
)
lines_of_programs = st.lists(
    st.one_of(
        good_calls, good_calls, any_calls, st.sampled_from(["keep_chunk()", "# all=True", "", "remove_lines(all=True)"])
    ),
    max_size=4,
).map("\n".join)
texts = st.lists(
    st.sampled_from(["the cat (sat) on", "a, b", "cat=dog 'the '", "", "  ", "one"]), min_size=1, max_size=6
)


@settings(max_examples=300)
@given(texts.map("\n".join), st.lists(st.tuples(lines_of_programs, st.booleans()), max_size=3), st.booleans())
def test_every_difference_is_explained(text, programs, with_checks):
    count = text.count("\n") + 1
    chunks = [
        ChunkProgram(number, count - number if number == len(programs) - 1 else 1, program.strip(" "), truncated)
        for number, (program, truncated) in enumerate(programs)
        if number < count
    ]
    found = compare_document(text, chunks, checks=DocumentChecks() if with_checks else OFF, caps=Caps(string_chars=6))
    assert bool(found.causes) is found.differ
    assert Cause.UNEXPLAINED not in {*found.causes, *(cause for call in found.calls for cause in call.causes)}
    assert all(MISREADINGS.issuperset(causes) for causes in found.well_formed)
