"""Execution: what each operation does, what is refused and why, and that text no program named is never touched."""

import pytest

from prox_hpc.programs import Caps, Normalize, Program, RemoveLines, execute, parse

LINES = ("Home | About", "A story about tea.", "Read more: http://a.b/c?d=e", "", "Copyright (c) tea, Inc.")


def run(text, lines=LINES, stage="chunk", truncated=False, **options):
    return execute(parse(text, stage, truncated=truncated), lines, **options)


def reasons(result):
    return [(outcome.outcome, outcome.reason) for outcome in result.outcomes]


def test_removal_is_inclusive_and_zero_based():
    result = run("remove_lines(0, 0)\nremove_lines(2, 3)")
    assert result.lines == (LINES[1], LINES[4])
    assert (result.status, result.removed, result.replaced, result.dropped) == ("ok", ((0, 0), (2, 3)), 0, False)
    assert reasons(result) == [("applied", None)] * 2


def test_operations_refer_to_the_original_line_numbers():
    assert run("remove_lines(0, 0)\nremove_lines(1, 1)").lines == LINES[2:]


def test_overlapping_removals_are_one_span():
    result = run("remove_lines(2, 4)\nremove_lines(1, 2)\nremove_lines(2, 2)")
    assert (result.lines, result.removed) == (LINES[:1], ((1, 4),))


def test_a_wholly_removed_chunk_leaves_no_line():
    assert run("remove_lines(0, 4)").lines == ()
    assert run("remove_lines(0, 0)", [""]).lines == ()


def test_a_chunk_program_may_name_only_its_own_lines():
    result = run("remove_lines(10, 10)\nremove_lines(9, 10)\nremove_lines(14, 15)\nremove_lines(0, 0)", first_line=10)
    assert result.lines == LINES[1:]
    assert result.removed == ((10, 10),)
    assert reasons(result) == [("applied", None)] + [("refused", "line outside the chunk")] * 3
    assert result.status == "partial"


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("remove_lines(0, 5)", "line outside the chunk"),
        ("remove_lines(-1, 0)", "line outside the chunk"),
        ("remove_lines(-3, -1)", "line outside the chunk"),
        ("remove_lines(0, 1000000000)", "line outside the chunk"),
        (f"remove_lines(0, {'9' * 10_000})", "integer too long"),
        ("remove_lines(0, 999999999999999999)", "line outside the chunk"),
        ("remove_lines(2, 1)", "start after end"),
        ("normalize('coffee')", "source not found"),
        ("normalize('')", "blank source"),
        ("normalize(' ')", "blank source"),
        (r"normalize(' \t\u00a0\n')", "blank source"),
        (r"normalize('About\nA story')", "source of several lines"),
        (r"normalize('tea', 'a\nb')", "line break in target"),
        (r"normalize('tea', 'a\rb')", "line break in target"),
        (r"normalize('tea', '\0')", "NUL in target"),
        (r"normalize('tea', '\ud83d\ude00')", "lone surrogate"),
        (r"normalize('\udc80')", "lone surrogate"),
        ("normalize('tea', '\ud800')", "lone surrogate"),
        (f"normalize('{'t' * 2001}')", "string too long"),
        (f"normalize('tea', '{'t' * 2001}')", "string too long"),
        (f"normalize('tea', '{'t' * 1000}')", "growth beyond the cap"),
    ],
)
def test_what_cannot_apply_is_refused_whole_and_the_others_stand(call, reason):
    result = run(f"remove_lines(3, 3)\n{call}\nnormalize('Read more: ')")
    assert reasons(result) == [("applied", None), ("refused", reason), ("applied", None)]
    assert result.lines == (LINES[0], LINES[1], "http://a.b/c?d=e", LINES[4])
    assert result.status == "partial"


def test_normalize_replaces_every_occurrence_literally():
    result = run(r"normalize('.', '!')", ["a.b.", ".*", "none"])
    assert (result.lines, result.replaced, result.status) == (("a!b!", "!*", "none"), 3, "ok")
    assert run(r"normalize('.*', r'\1')", ["a.b.", ".*"]).status == "malformed"
    assert run(r"normalize('.*', '\\1')", ["a.b.", ".*"]).lines == ("a.b.", "\\1")


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("normalize('http://a.b/c?d=e')", "Read more: "),
        ('normalize("Read more: ", "")', "http://a.b/c?d=e"),
        ("normalize(source_str='a.b', target_str='b, (c)=d')", "Read more: http://b, (c)=d/c?d=e"),
    ],
)
def test_commas_parentheses_and_equal_signs_are_text(call, line):
    assert run(call).lines[2] == line


def test_normalisations_come_first_in_order_each_on_the_result_before():
    result = run("remove_lines(0, 0)\nnormalize('a', 'b')\nnormalize('b', 'c')\nnormalize('a')", ["a", "ab", "x"])
    assert result.lines == ("cc", "x")
    assert result.replaced == 5
    assert [outcome for outcome, _ in reasons(result)] == ["applied", "applied", "applied", "refused"]


def test_a_source_equal_to_its_target_changes_nothing():
    result = run("normalize('tea', 'tea')")
    assert (result.lines, result.replaced, result.status) == (LINES, 0, "ok")
    assert reasons(result) == [("no_change", "source equals target")]


@pytest.mark.parametrize("text", ["keep_chunk()", "untouch_doc()"])
def test_keep_changes_nothing(text):
    result = run(text)
    assert (result.lines, result.status, reasons(result)) == (LINES, "ok", [("no_change", None)])


def test_removals_win_over_keep():
    assert run("keep_chunk()\nremove_lines(0, 0)").lines == LINES[1:]


def test_malformed_leaves_the_chunk():
    for text in ("drop_doc()", "remove_lines(0, 0)\ndrop_doc()", "remove_lines(0, 0) and so on", ""):
        result = run(text)
        assert (result.lines, result.status, result.outcomes, result.dropped) == (LINES, "malformed", (), False)


def test_truncated_comes_before_partial():
    result = run("remove_lines(0, 0)\nremove_lines(9, 9)\nremove_lines(1, ", truncated=True)
    assert (result.lines, result.status, len(result.outcomes)) == (LINES[1:], "truncated", 2)


def test_doc_programs():
    dropped = run("drop_doc()", stage="doc")
    assert (dropped.dropped, dropped.lines, dropped.status, reasons(dropped)) == (True, (), "ok", [("applied", None)])
    for text, status in [("keep_doc()", "ok"), ("untouch_doc()", "ok"), ("keep_doc();drop_doc()", "malformed")]:
        kept = run(text, stage="doc")
        assert (kept.dropped, kept.lines, kept.status) == (False, LINES, status)
    assert not run("a page about raindrops", stage="doc").dropped
    assert run("drop_doc()\nke", stage="doc", truncated=True).dropped


def test_growth_is_bounded_however_it_is_tried():
    lines = ["ab" * 50] * 10
    text = "\n".join(["normalize('a', 'aa')", "normalize('b', 'bbbb')"] * 20)
    result = run(text, lines)
    size = len("\n".join(lines))
    assert len("\n".join(result.lines)) <= size * 1.25 + 512
    assert ("refused", "growth beyond the cap") in reasons(result)
    assert run("normalize('a', 'aa')", lines, caps=Caps(growth_ratio=0, growth_chars=0)).lines == tuple(lines)
    assert run("normalize('a', 'aa')", lines, caps=Caps(growth_chars=500)).status == "ok"


def test_deletion_only_refuses_normalisations():
    result = run("normalize('tea')\nremove_lines(0, 0)", profile="deletion_only")
    assert (result.lines, result.status) == (LINES[1:], "partial")
    assert reasons(result) == [("refused", "not in this profile"), ("applied", None)]


def test_an_unknown_profile_is_the_callers_error():
    with pytest.raises(ValueError, match="unknown profile"):
        run("keep_chunk()", profile="v0")


def test_prox_v1_reads_the_text_not_the_operations():
    result = run("remove_lines(start=0, end=12", profile="prox_v1")
    assert (result.lines, result.removed, result.status) == (LINES[2:], ((0, 1),), "partial")
    assert run("remove_lines(start=10, end=11)", profile="prox_v1", first_line=10).lines == LINES[2:]
    assert run("here comes a dropdown", stage="doc", profile="prox_v1").dropped


def test_hand_made_programs_do_no_harm():
    program = Program((RemoveLines(0, 10**30), Normalize("\0" * 10)), "ok", None, "chunk", "")
    assert execute(program, LINES).lines == LINES
    wrong = Program(parse("drop_doc()", "doc").operations, "ok", None, "chunk", "")
    assert (execute(wrong, LINES).dropped, execute(wrong, LINES).status) == (False, "partial")
    assert execute(parse("normalize('a')\nremove_lines(0, 0)", "chunk"), []).lines == ()


def test_odd_text_passes_through_byte_for_byte():
    lines = ["\ud800 lone", "NUL \0", "tab\t", "cr\r", "\u2028\x85\v\f", "", "ﬁ é e\u0301"]
    assert run("remove_lines(5, 5)\nnormalize('tab\\t', 'TAB')", lines).lines == (
        *lines[:2],
        "TAB",
        *lines[3:5],
        lines[6],
    )


@pytest.mark.timeout(60)  # quadratic time would be minutes
def test_a_ten_megabyte_line():
    line = "ab" * 5_000_000
    result = run("normalize('abb')\nnormalize('ba', 'c')\nremove_lines(0, 0)", [line, "x"])
    assert result.lines == ("x",)
