"""Every case that fuzzing found, run through every promise again (`found/`; one JSON file a case, pure ASCII).

Some broke a promise once; most reach a behaviour of their own: a combination of status, reason and outcomes. They are
written by `tools/fuzz_programs.py` and `tools/fuzz_atheris.py`.
"""

import json
from pathlib import Path

import pytest
from fuzz_programs import FOUND, Case, Violation, check_against_ast, check_case, check_result, load_case, save_case

from prox_hpc.programs import execute, parse

PATHS = sorted(FOUND.glob("*.json"))


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_a_found_case_keeps_every_promise(path: Path):
    case = load_case(path)
    check_case(case)
    check_against_ast(case)


def test_there_are_cases_of_every_status_and_they_are_small():
    whys = [json.loads(path.read_text())["why"] for path in PATHS]
    assert 50 < len(PATHS) <= 200
    assert all(whys)
    assert max(path.stat().st_size for path in PATHS) < 4_000


@pytest.mark.parametrize("text", ["\ud800 \0\r\n\u2028", "é\\", ""])
def test_a_case_survives_its_file(tmp_path, text):
    case = Case(f"normalize('{text}')", text, 3, wide=True)
    path = save_case(tmp_path, case, "a test")
    assert path.read_bytes().isascii()
    assert load_case(path) == case


@pytest.mark.parametrize(
    ("program", "wrong", "promise"),
    [
        ("remove_lines(0, 0)", {"lines": ("c",)}, "every other line byte for byte"),
        ("remove_lines(0, 0)", {"lines": ("b", "c ")}, "every other line byte for byte"),
        ("remove_lines(0, 0) x", {"lines": ("b", "c")}, "malformed: the text is intact"),
        ("keep_chunk()", {"dropped": True}, "a chunk program dropped the document"),
        ("remove_lines(0, 0)", {"removed": ()}, "removed spans: the removed lines"),
        ("remove_lines(0, 9)", {"status": "ok"}, "partial: an operation was refused"),
        ("keep_chunk()", {"outcomes": ()}, "one outcome for each operation"),
        ("normalize('a', 'a' )", {"lines": ("a" * 999, "b", "c")}, "every other line|growth beyond the bound"),
    ],
)
def test_a_broken_promise_is_noticed(program, wrong, promise):
    """The checks are no stubs: results that are wrong in one place do not pass them."""
    lines = ["a", "b", "c"]
    parsed = parse(program, "chunk")
    right = execute(parsed, lines)
    case = Case(program, "\n".join(lines))
    check_result(right, parsed, case, lines, "v1")
    with pytest.raises(Violation, match=promise):
        check_result(right._replace(**wrong), parsed, case, lines, "v1")
