"""Documents in a terminal of 80 columns and in a pipe."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from prox_hpc.inspection.select import Wanted, select
from prox_hpc.inspection.terminal import show
from prox_hpc.recorded import open_recorded

STRUCK_RED, GREEN, OFF = "\x1b[9;31m", "\x1b[32m", "\x1b[0m"


@pytest.fixture(scope="module")
def views(run: Path) -> dict[str, object]:
    recorded = open_recorded(run)
    return {view.id.strip("<b>/\u202e"): view for view in select(recorded, recorded.execution, Wanted(), 100).views}


def shown(view: object, *, terminal: bool, **options: object) -> str:
    file = io.StringIO()
    system = "standard" if terminal else None
    console = Console(
        file=file,
        width=80,
        force_terminal=terminal,
        color_system=system,
        highlight=False,
        legacy_windows=False,
        **options,
    )
    show(console, view)
    return file.getvalue()


def test_in_a_terminal_removed_lines_are_struck_through_in_red(views: dict[str, object]) -> None:
    text = shown(views["menu"], terminal=True)
    assert f"{STRUCK_RED}Home | About{OFF}" in text
    assert f"{STRUCK_RED}Share this{OFF}" in text
    assert text.count(STRUCK_RED) == 2
    assert "000" in text
    assert all(len(line) < 140 for line in text.splitlines())  # wrapped, its escapes aside


def test_in_a_terminal_old_and_new_text_differ_by_colour(views: dict[str, object]) -> None:
    text = shown(views["spaces"], terminal=True)
    assert f"{STRUCK_RED}one" in text
    assert f"{GREEN}one two three{OFF}" in text
    assert "[-" not in text


def test_in_a_pipe_marks_say_it_and_lines_stay_whole(views: dict[str, object]) -> None:
    lines = shown(views["menu"], terminal=False).splitlines()
    assert lines[0].startswith("edited menu ")
    assert lines[1:3] == ["https://www.Example.org/museum", "score +1.00 · 2 removed of 3 lines · 22 → 17 words"]
    assert lines[3:] == [
        "        lines 000-002  partial",
        "          ✓ remove_lines(0, 0)",
        "          ✓ remove_lines(2, 2)",
        "          ✗ remove_lines(7, 9)  refused: line outside the chunk",
        "  000 - Home | About",
        "  001   The museum opened its doors in the old town and has been visited by many people since.",
        "  002 - Share this",
    ]
    text = shown(views["spaces"], terminal=False)
    assert "  000 ~ [-one<U+00A0>two  three-]{+one two three+}\n" in text
    assert "    ⋮   36 unchanged lines\n" in text
    assert "\x1b" not in text


def test_without_colours_a_terminal_gets_the_marks_too(views: dict[str, object]) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown(views["spaces"], terminal=True, no_color=True))
    assert "~ one<U+00A0>" not in text
    assert "~ [-one<U+00A0>two  three-]{+one two three+}" in text


def test_dropped_truncated_and_malformed_are_told(views: dict[str, object]) -> None:
    assert "dropped: doc program\n" in shown(views["junk"], terminal=False)
    text = shown(views["cut"], terminal=False)
    assert "lines 002-003  truncated: last call cut off\n" in text
    assert '          | normalize("The mus\n' in text


@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_text_reaches_no_terminal(views: dict[str, object], terminal: bool) -> None:
    text = shown(views["hostile"], terminal=terminal)
    assert not {*text} & {*"\0\r\x85\u202e\u2028\u200b"}
    assert "\x1b[2J" not in text
    assert "<U+001B>" in text
    assert "[bold]not markup[/bold]" in text  # nor is it rich's markup
    assert "… 99,600 characters …" in text
    assert len(text) < 5_000
