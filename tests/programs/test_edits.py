"""What normalisations did, in the coordinates of the original lines."""

from hypothesis import given
from hypothesis import strategies as st

from prox_hpc.programs import Normalize, execute, parse, render
from prox_hpc.programs.edits import Replacement, replacements
from prox_hpc.programs.prox_v1 import run_operations

texts = st.text(alphabet="ab \u202e\U0001f600", max_size=12)
documents = st.lists(texts, min_size=1, max_size=6)
normalizes = st.lists(
    st.builds(Normalize, st.text(alphabet="ab ", min_size=1, max_size=3), st.text(alphabet="abc ", max_size=4)),
    min_size=1,
    max_size=8,
)


def of_program(lines: list[str], *pairs: tuple[str, str], first_line: int = 0) -> tuple[Replacement, ...]:
    program = parse(render(Normalize(*pair) for pair in pairs), "chunk")
    result = execute(program, lines, first_line=first_line)
    found = replacements(lines, result.outcomes, first_line)
    assert replaced(lines, found, first_line) == list(result.lines)
    return found


def replaced(lines: list[str], found: tuple[Replacement, ...], first_line: int = 0) -> list[str]:
    """The replacements applied to the original lines; they must be disjoint and ascending."""
    result, places = list(lines), []
    for one in reversed(found):
        line = result[one.line - first_line]
        assert 0 <= one.start < one.end <= len(line)
        assert lines[one.line - first_line][one.start : one.end] != one.target
        result[one.line - first_line] = line[: one.start] + one.target + line[one.end :]
        places += [(one.line, one.end), (one.line, one.start)]
    assert places == sorted(places, reverse=True)
    return result


def test_every_occurrence_with_its_line_and_columns() -> None:
    assert of_program(["one -- two", "", "--three"], ("--", "–"), first_line=7) == (
        Replacement(7, 4, 6, "–"),
        Replacement(9, 0, 2, "–"),
    )


def test_a_deletion_next_to_a_replacement_stays_apart() -> None:
    assert of_program(["aXa"], ("a", ""), ("X", "Z")) == (
        Replacement(0, 0, 1, ""),
        Replacement(0, 1, 2, "Z"),
        Replacement(0, 2, 3, ""),
    )


def test_replacements_that_meet_become_one() -> None:
    assert of_program(["say &amp;nbsp; so"], ("&amp;", "&"), ("&nbsp;", " ")) == (Replacement(0, 4, 14, " "),)
    assert of_program(["XaY"], ("a", ""), ("XY", "Q")) == (Replacement(0, 0, 3, "Q"),)
    assert of_program(["mn"], ("m", "axa"), ("a", "bb")) == (Replacement(0, 0, 1, "bbxbb"),)
    assert of_program(["ab cd"], ("b", "1 2"), ("2 c", "3")) == (Replacement(0, 1, 4, "1 3"),)


def test_what_comes_back_to_the_original_is_no_replacement() -> None:
    assert of_program(["ab"], ("a", "x"), ("x", "a")) == ()


def test_refused_operations_replace_nothing() -> None:
    assert of_program(["ab"], ("x", "y"), ("", "y"), ("a", "a"), ("b", "c")) == (Replacement(0, 1, 2, "c"),)


def test_removals_are_not_its_business() -> None:
    lines = ["a", "a b"]
    result = execute(parse('remove_lines(0, 0)\nnormalize("a", "c")', "chunk"), lines)
    assert replacements(lines, result.outcomes) == (Replacement(0, 0, 1, "c"), Replacement(1, 0, 1, "c"))


@given(documents, normalizes, st.integers(0, 3))
def test_replacing_gives_the_lines_that_execution_makes(lines, operations, first_line):
    of_program(lines, *((one.source_str, one.target_str) for one in operations), first_line=first_line)


@given(documents, normalizes)
def test_it_holds_for_the_released_executor_too(lines, operations):
    calls = "\n".join(f'normalize(source_str="{one.source_str}", target_str="{one.target_str}")' for one in operations)
    result = execute(parse(calls, "chunk"), lines, profile="prox_v1")
    found = replacements(lines, result.outcomes)
    assert replaced(lines, found) == list(run_operations("\n".join(lines), calls).lines)


def test_many_occurrences_many_times() -> None:
    """128 operations with 10,000 occurrences each: a way quadratic in these takes minutes, a linear one a second."""
    lines = ["ab" * 2_000] * 5
    pairs = [("a", "c"), ("c", "a")] * 63 + [("a", "d"), ("b", "")]
    found = of_program(lines, *pairs)
    assert len(found) == 20_000
    assert found[:2] == (Replacement(0, 0, 1, "d"), Replacement(0, 1, 2, ""))
