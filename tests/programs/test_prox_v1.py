"""The released executor's behaviour, row by row of the facts sheet's table 1.6, and its post-checks.

Some rows were learnt by running the released code; they are kept here as facts about the released refiners' corpus, not
as a model to follow. The names of the cases are the table's own words.
"""

import pytest

from prox_hpc.programs import ChunkProgram, execute_prox_v1, refine_document
from prox_hpc.programs.prox_v1 import (
    MOST_GROWTH_CHARS,
    MOST_GROWTH_RATIO,
    MOST_REPLACEMENTS,
    drops,
    join_outputs,
    run_operations,
)

LINES = [f"line {number} says: the cat, (sat) on http://a.b/?q=1&r=2" for number in range(12)]
TEXT = "\n".join(LINES)


def left(program, text=TEXT):
    """The text after the operations, before the post-checks, and the number of errors."""
    result = run_operations(text, program)
    gone = {number for start, end in result.removed for number in range(start, end + 1)}
    return "\n".join(line for number, line in enumerate(result.lines) if number not in gone), result.errors


def without(*numbers):
    return "\n".join(line for number, line in enumerate(LINES) if number not in numbers)


def replaced(source, target=""):
    return TEXT.replace(source, target)


URL = "http://a.b/?q=1&r=2"

# The row of the table, what the program says, what is left, errors.
ROWS = [
    ("positional: error, nothing removed", "remove_lines(0, 0)", TEXT, 1),
    ("start/end keywords work", "remove_lines(start=0, end=1)", without(0, 1), 0),
    ("any keyword names work: line_start/line_end", "remove_lines(line_start=0, line_end=1)", without(0, 1), 0),
    ("any keyword names work: x/y", "remove_lines(x=0,y=1)", without(0, 1), 0),
    ("any keyword names work: names ignored, even swapped", "remove_lines(end=0, start=1)", without(0, 1), 0),
    ("leading spaces before the call: ignored, no error", "keep\n  remove_lines(start=0, end=1)", TEXT, 0),
    ("leading spaces before the call: a tab too", "\tremove_lines(start=0, end=1)", TEXT, 0),
    ("leading spaces of the whole output are stripped", "  remove_lines(start=0, end=1)", without(0, 1), 0),
    ("truncated without ): last character lost, end=12 is 1", "remove_lines(start=0, end=12", without(0, 1), 1),
    ("truncated without ): normalize too", 'normalize(source_str="line 1"', replaced("line 1"), 1),
    ("truncated without ): a string loses what it lost", 'normalize(source_str="the c', replaced("the "), 1),
    ("cut mid-keyword: 2 errors", "remove_lines(start=7, end", TEXT, 2),
    ("end beyond last line: error, in-range lines removed", "remove_lines(start=10, end=40)", without(10, 11), 1),
    ("end beyond last line: start too", "remove_lines(start=40, end=41)", TEXT, 1),
    ("start > end: no-op, no error", "remove_lines(start=3, end=1)", TEXT, 0),
    ("start > end: an error if the start is beyond the last line", "remove_lines(start=40, end=2)", TEXT, 1),
    ("negative indices: no-op, no error", "remove_lines(start=-3, end=-1)", TEXT, 0),
    ("negative indices: up to a line that is there", "remove_lines(start=-3, end=0)", without(0), 0),
    ("source with a comma: ignored, no error", 'normalize(source_str="the cat, (sat", target_str="x")', TEXT, 0),
    ("source with a comma: three parts of one argument", 'normalize(source_str="a,b,c")', TEXT, 0),
    ("source with a comma: two parts of one argument, an error", 'normalize(source_str="cat, x")', TEXT, 1),
    ("source with ): cut there", 'normalize(source_str="(sat) on")', replaced("(sat"), 0),
    ("source with ): target lost", 'normalize(source_str="(sat) on", target_str="stood")', replaced("(sat"), 0),
    (
        "source with =: cut there, debris left",
        f'normalize(source_str="{URL}", target_str="")',
        replaced("http://a.b/?q"),
        0,
    ),
    ("target with =: cut there", 'normalize(source_str="cat", target_str="a=b")', replaced("cat", "a"), 0),
    ("single-quoted: quotes kept, no match, no error", "normalize(source_str='cat', target_str='dog')", TEXT, 0),
    ("escapes not interpreted: a line feed", r'normalize(source_str="\n")', TEXT, 0),
    ("escapes not interpreted: a code point", r'normalize(source_str="\x63at", target_str="dog")', TEXT, 0),
    ("source not found: no error", 'normalize(source_str="zebra", target_str="")', TEXT, 0),
    ("one-argument space: deletes every space", 'normalize(source_str=" ")', replaced(" "), 0),
    ("blank guard for two arguments: space", 'normalize(source_str=" ", target_str="")', TEXT, 0),
    ("blank guard for two arguments: empty source", 'normalize(source_str="", target_str="x")', TEXT, 0),
    ("one-argument empty source", 'normalize(source_str="")', TEXT, 0),
    ("short common source: removed everywhere", 'normalize(source_str="the ")', replaced("the "), 0),
    ("all=True: whole document blanked", "remove_lines(all=True)", "", 0),
    ("all=True: wherever it stands", "remove_lines(start=0, end=0)\nremove_lines(all=True)\nuntouch_doc()", "", 0),
    ("all=True: even in a comment behind a call", "remove_lines(start=0, end=0)  # not all=True", "", 0),
    ("ignored: untouch_doc()", "untouch_doc()", TEXT, 0),
    ("ignored: comments", "# remove_lines(start=0, end=1)", TEXT, 0),
    ("ignored: unknown text", "Sorry.\nremove_line(start=0, end=1)", TEXT, 0),
    ("ignored: empty output", "", TEXT, 0),
    ("ignored: blank lines", "\n\n", TEXT, 0),
    ("untouch_doc() plus removals: removals win", "untouch_doc()\nremove_lines(start=0, end=0)", without(0), 0),
    ("untouch_doc() plus removals: in either order", "remove_lines(start=0, end=0)\nuntouch_doc()", without(0), 0),
    # Learnt by running, beside the table.
    ("only the first call on a line", "remove_lines(start=0, end=0); remove_lines(start=1, end=1)", without(0), 0),
    ("a call over several lines: two errors", "remove_lines(\nstart=0, end=0)", TEXT, 2),
    ("a trailing comma of a removal", "remove_lines(start=0, end=0,)", without(0), 0),
    ("a trailing comma of a replacement: an error", 'normalize(source_str="cat",)', TEXT, 1),
    ("a blank between = and a string is part of it", 'normalize(source_str= "cat")', TEXT, 0),
    ("a positional string with = is what follows it", 'normalize("x?cat=line ")', replaced("line "), 0),
    ("a positional string: an error", 'normalize("cat")', TEXT, 1),
    ("calls without parentheses: an error each", "remove_lines\nnormalize", TEXT, 2),
    ("calls without an opening parenthesis", "remove_lines start=0, end=1)", TEXT, 1),
    (
        "touching ranges count one error",
        "remove_lines(start=5, end=40)\nremove_lines(start=41, end=42)",
        "\n".join(LINES[:5]),
        1,
    ),
    ("ranges apart count an error each", "remove_lines(start=20, end=21)\nremove_lines(start=40, end=42)", TEXT, 2),
    ("integers as Python reads them: blanks and sign", "remove_lines(start= 0 , end=+1)", without(0, 1), 0),
    ("integers as Python reads them: underscores", "remove_lines(start=0, end=1_0)", LINES[11], 0),
    ("integers as Python reads them: no float", "remove_lines(start=0, end=1.0)", TEXT, 1),
    ("integers as Python reads them: 5,000 digits are none", f"remove_lines(start=0, end={'9' * 5000})", TEXT, 1),
]


@pytest.mark.parametrize(("program", "text", "errors"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_row_of_table_1_6(program, text, errors):
    assert left(program) == (text, errors)


def test_escapes_match_what_stands_there_as_written():
    assert left(r'normalize(source_str="a\tb", target_str="")', "a\tb") == ("a\tb", 0)
    assert left(r'normalize(source_str="a\tb", target_str="")', r"a\tb") == ("", 0)


def test_normalisations_are_global_and_removals_come_last():
    program = 'remove_lines(start=0, end=0)\nnormalize(source_str="line ", target_str="L")'
    assert left(program) == ("\n".join(LINES[1:]).replace("line ", "L"), 0)
    chained = 'normalize(source_str="cat", target_str="dog")\nnormalize(source_str="dog", target_str="cow")'
    assert left(chained) == (replaced("cat", "cow"), 0)


def by_chunks(*programs, text=TEXT):
    """A document whose successive lines are chunks with these programs."""
    chunks = [ChunkProgram(number, 1, program) for number, program in enumerate(programs)]
    return refine_document(text, chunks, profile="prox_v1")


def test_all_chunk_outputs_are_one_program_for_the_whole_document():
    anywhere = by_chunks("untouch_doc()", 'normalize(source_str="cat")\nremove_lines(start=11, end=11)')
    assert anywhere.text == "\n".join(LINES[:11]).replace("cat", "")
    assert by_chunks("untouch_doc()", "remove_lines(all=True)", "untouch_doc()").reason == "removed too much"


def test_errors_are_pooled_over_all_chunks():
    good = "remove_lines(start=0, end=0)"
    assert by_chunks(good, "remove_lines(1, 1)").text == without(0)
    assert by_chunks(good, "remove_lines(1, 1)", "remove_lines(2, 2)").text == TEXT
    assert by_chunks(good, "remove_lines(start=7, end").text == TEXT


def test_each_chunk_output_is_stripped_of_spaces_before_they_are_joined():
    assert join_outputs([" a ", "\tb", "", "  c\n d "]) == "a\n\tb\n\nc\n d"


def test_check_removed_too_much_needs_few_errors():
    text = "\n".join(["word " * 20, "word " * 20, "more words " * 500])
    result = execute_prox_v1(text, "remove_lines(start=2, end=2)")
    assert (result.text, result.verdict) == ("", "removed too much")
    reverted = execute_prox_v1(text, "remove_lines(start=2, end=2)\nremove_lines(0, 0)\nremove_lines(1, 1)")
    assert (reverted.text, reverted.verdict) == (text, "reverted")


def test_check_ten_words_applies_to_untouched_documents_and_in_spite_of_errors():
    assert execute_prox_v1("three word page", "untouch_doc()").text == ""
    assert execute_prox_v1("three word page", "remove_lines(0, 0)\n" * 3).verdict == "too few words"
    ten, eleven = " ".join("abcdefghij"), " ".join("abcdefghijk")
    assert (execute_prox_v1(ten, "").text, execute_prox_v1(eleven, "").text) == ("", eleven)


def test_one_error_is_accepted_two_revert_the_document():
    removal = "remove_lines(start=0, end=0)\n"
    assert execute_prox_v1(TEXT, removal + "remove_lines(1, 1)").text == without(0)
    assert execute_prox_v1(TEXT, removal + "remove_lines(1, 1)\nremove_lines(2, 2)").text == TEXT


def test_a_three_word_page_with_three_bad_calls_comes_back_empty():
    result = execute_prox_v1("three word page", "remove_lines(0, 0)\n" * 3)
    assert (result.text, result.verdict, result.operations.errors) == ("", "too few words", 3)


def test_exactly_five_percent_left_goes():
    text = "\n".join(["word"] * 400)
    assert execute_prox_v1(text, "remove_lines(start=20, end=399)").verdict == "removed too much"
    assert execute_prox_v1(text, "remove_lines(start=21, end=399)").verdict == "accepted"


@pytest.mark.timeout(60)  # quadratic time would be minutes
def test_departure_huge_ranges_are_no_bomb():
    assert left("remove_lines(start=1, end=1000000000000)") == (LINES[0], 1)
    assert left("remove_lines(start=-1000000000000, end=10)") == (LINES[11], 0)


def test_departure_growth_is_bounded():
    program = 'normalize(source_str="a", target_str="aaaaaaaaaa")\n' * 100
    result = run_operations("a" * 100, program)
    assert len(result.lines[0]) <= 100 * (1 + MOST_GROWTH_RATIO) + MOST_GROWTH_CHARS
    assert result.steps[0].outcome == "applied"
    assert (result.steps[-1].outcome, result.steps[-1].reason) == ("no_change", "growth beyond the bound")


def test_departure_replacements_are_bounded():
    program = (
        'normalize(source_str="zebra")\n' * MOST_REPLACEMENTS
        + 'normalize(source_str="cat")\nremove_lines(start=0, end=0)'
    )
    result = run_operations(TEXT, program)
    assert result.steps[-3].reason == "source not found"
    assert result.steps[-2].reason == "too many replacements"
    assert (result.replaced, result.removed) == (0, ((0, 0),))


@pytest.mark.parametrize("text", ["", " ", " \n\t", "\n\n"])
def test_departure_a_text_without_words_gives_nothing_instead_of_a_crash(text):
    assert (execute_prox_v1(text, "").text, execute_prox_v1(text, "").verdict) == ("", "no words")


@pytest.mark.parametrize(
    ("output", "dropped"),
    [
        pytest.param("drop_doc()", True, id="the call"),
        pytest.param("drop", True, id="bare word"),
        pytest.param(" drop_doc()", True, id="spaces stripped"),
        pytest.param("a dropdown menu", True, id="anywhere, as in dropdown"),
        pytest.param("keep_doc()  # do not drop", True, id="a keep program that mentions it"),
        pytest.param("keep_doc()", False, id="keep"),
        pytest.param("DROP_DOC()", False, id="capitals are another substring"),
        pytest.param("", False, id="empty output"),
    ],
)
def test_doc_stage_looks_for_the_substring_drop(output, dropped):
    assert drops(output) is dropped
