"""The released executor's behaviour, row by row of the facts sheet's table 1.6, and its post-checks.

Some rows were learnt by running the released code; they are kept here as facts about the released refiners' corpus, not
as a model to follow.
"""

import time

import pytest

from prox_hpc.programs import execute_prox_v1
from prox_hpc.programs.prox_v1 import drops, run_operations

LINES = [f"line {number} says: the cat, (sat) on http://a.b/?q=1&r=2" for number in range(12)]
TEXT = "\n".join(LINES)


def left(program, text=TEXT):
    """The text after the operations, before the post-checks, and the number of errors."""
    result = run_operations(text, program)
    gone = {number for start, end in result.removed for number in range(start, end + 1)}
    return "\n".join(line for number, line in enumerate(result.lines) if number not in gone), result.errors


def without(*numbers):
    return "\n".join(line for number, line in enumerate(LINES) if number not in numbers)


def test_positional_call_is_an_error():
    assert left("remove_lines(0, 0)") == (TEXT, 1)


def test_any_keywords_work():
    for program in ("start=0, end=1", "line_start=0, line_end=1", "x=0,y=1", "end=0, start=1"):
        assert left(f"remove_lines({program})") == (without(0, 1), 0)


def test_leading_spaces_are_ignored_without_error():
    # The very first spaces are stripped from the whole program; a later line with spaces is no operation.
    assert left("keep\n  remove_lines(start=0, end=1)") == (TEXT, 0)
    assert left("  remove_lines(start=0, end=1)") == (without(0, 1), 0)
    assert left("\tremove_lines(start=0, end=1)") == (TEXT, 0)


def test_truncated_call_loses_its_last_character():
    assert left("remove_lines(start=0, end=12") == (without(0, 1), 1)


def test_call_cut_in_a_keyword_is_two_errors():
    assert left("remove_lines(start=7, end") == (TEXT, 2)


def test_end_beyond_the_last_line_is_an_error_but_removes():
    assert left("remove_lines(start=10, end=40)") == (without(10, 11), 1)
    assert left("remove_lines(start=40, end=41)") == (TEXT, 1)


def test_touching_ranges_count_one_error():
    assert left("remove_lines(start=5, end=40)\nremove_lines(start=3, end=4)\nremove_lines(start=41, end=42)")[1] == 1


def test_start_after_end_and_negative_are_no_ops():
    assert left("remove_lines(start=3, end=1)") == (TEXT, 0)
    assert left("remove_lines(start=-3, end=-1)") == (TEXT, 0)
    assert left("remove_lines(start=-3, end=0)") == (without(0), 0)


def test_huge_end_is_no_bomb_here():
    start = time.perf_counter()
    assert left("remove_lines(start=1, end=1000000000000)") == (LINES[0], 1)
    assert time.perf_counter() - start < 0.1


def test_source_with_a_comma_is_ignored_without_error():
    assert left('normalize(source_str="the cat, (sat", target_str="x")') == (TEXT, 0)
    assert left('normalize(source_str="a,b,c")') == (TEXT, 0)


def test_source_with_one_comma_and_no_target_is_an_error():
    # Two parts, the second without an equal sign.
    assert left('normalize(source_str="cat, x")') == (TEXT, 1)


def test_source_with_a_parenthesis_is_cut():
    assert left('normalize(source_str="(sat) on", target_str="stood")') == (TEXT.replace("(sat", ""), 0)


def test_source_with_an_equal_sign_is_cut():
    assert left('normalize(source_str="http://a.b/?q=1&r=2", target_str="")') == (TEXT.replace("http://a.b/?q", ""), 0)


def test_single_quotes_stay_part_of_the_string():
    assert left("normalize(source_str='cat', target_str='dog')") == (TEXT, 0)


def test_escapes_are_not_interpreted():
    assert left(r'normalize(source_str="a\tb", target_str="")', "a\tb") == ("a\tb", 0)
    assert left(r'normalize(source_str="a\tb", target_str="")', r"a\tb") == ("", 0)


def test_source_not_found_is_no_error():
    assert left('normalize(source_str="zebra", target_str="")') == (TEXT, 0)


def test_one_argument_deletes_every_space():
    assert left('normalize(source_str=" ")') == (TEXT.replace(" ", ""), 0)
    assert left('normalize(source_str=" ", target_str="")') == (TEXT, 0)  # the guard for two


def test_short_source_is_removed_everywhere():
    assert left('normalize(source_str="the ")') == (TEXT.replace("the ", ""), 0)


def test_all_true_blanks_the_document():
    assert left("remove_lines(all=True)") == ("", 0)
    assert left("remove_lines(start=0, end=0)\nremove_lines(all=True)\nremove_lines(start=1, end=1)") == ("", 0)


@pytest.mark.parametrize("program", ["untouch_doc()", "# note", "Sorry.", "", "\n\n", "remove_line(start=0, end=1)"])
def test_everything_else_is_ignored(program):
    assert left(program) == (TEXT, 0)


def test_removals_win_over_untouch():
    assert left("untouch_doc()\nremove_lines(start=0, end=0)") == (without(0), 0)


def test_calls_without_parentheses_are_errors():
    assert left("remove_lines\nnormalize") == (TEXT, 2)
    assert left("remove_lines start=0, end=1)") == (TEXT, 1)


def test_normalisations_are_global_and_removals_come_last():
    program = 'remove_lines(start=0, end=0)\nnormalize(source_str="line ", target_str="L")'
    assert left(program) == ("\n".join(LINES[1:]).replace("line ", "L"), 0)


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


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_text_without_words_gives_nothing_instead_of_a_crash(text):
    assert (execute_prox_v1(text, "").text, execute_prox_v1(text, "").verdict) == ("", "no words")


@pytest.mark.parametrize(
    ("output", "dropped"), [("drop_doc()", True), ("drop", True), ("a dropdown menu", True), ("keep_doc()", False)]
)
def test_doc_stage_looks_for_a_substring(output, dropped):
    assert drops(output) is dropped


def test_growth_is_bounded():
    program = 'normalize(source_str="a", target_str="aaaaaaaaaa")\n' * 100
    assert len(left(program, "a" * 100)[0]) <= 100 * 5 + 65_536


def test_integers_are_read_as_python_reads_them():
    assert left("remove_lines(start= 0 , end=+1)") == (without(0, 1), 0)
    assert left("remove_lines(start=0, end=1_0)")[0] == LINES[11]
    assert left(f"remove_lines(start=0, end={'9' * 5000})") == (TEXT, 1)
    assert left("remove_lines(start=0, end=1.0)") == (TEXT, 1)
