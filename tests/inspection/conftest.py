"""Finished runs with programs written by hand, so that what there is to see is known; no model runs here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from prox_hpc.corpus.read import Document
from prox_hpc.programs import ChunkProgram
from prox_hpc.refine.records import Written

Written_ = tuple[Document, Written]
MakeRun = Callable[..., Path]

BODY = "The museum opened its doors in the old town and has been visited by many people since."
HOSTILE = "\n".join(
    [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(2)> &amp; <!-- --> ]]>",
        "mail\u202etxt.exe\u202c zero\u200bwidth \x00 NUL \x1b[2J\x1b[31mred \u2028 \u0085 end\r",
        "x" * 100_000,
        "שלום עולם and مرحبا بالعالم",
        "{{ 7 * 7 }} [bold]not markup[/bold] ${alert(3)}",
    ]
)


def written(*programs: str, lines: int, score: float = 1.0, truncated: bool = False) -> Written:
    """A document's programs; the chunks are of equal length. truncated: the last one."""
    size = lines // len(programs)
    chunks = [
        ChunkProgram(n * size, size if n < len(programs) - 1 else lines - n * size, text)
        for n, text in enumerate(programs)
    ]
    if truncated:
        last = chunks[-1]
        chunks[-1] = ChunkProgram(last.first_line, last.line_count, last.program_text, truncated=True)
    return Written(score, chunks=chunks)


def _documents() -> list[Written_]:
    """One document of each sort."""
    menu = Document("menu", f"Home | About\n{BODY}\nShare this", {"url": "https://www.Example.org/museum"})
    spaces = Document(
        "spaces",
        f"one\u00a0two  three\n{BODY}\n" + "\n".join(f"line {n}" for n in range(2, 40)),
        {"url": "http://b.test/s"},
    )
    junk = Document("junk", f"{BODY}\ncheap watches", {"url": "http://spam.test/"})
    short = Document("short", f"a few words\n{BODY}", {})
    blank = Document("blank", " \n", {})
    hostile = Document("<b>hostile</b>\u202e", HOSTILE, {"url": "javascript:alert(4)"})
    cut = Document("cut", f"{BODY}\nfooter\n{BODY}\nfooter", {"url": "http://b.test/c"})
    return [
        (menu, written("remove_lines(0, 0)\nremove_lines(2, 2)\nremove_lines(7, 9)", lines=3)),
        (
            spaces,
            written(
                'normalize("one\\u00a0two", "one two")\nnormalize("two  three", "two three")\nnormalize("absent")',
                lines=40,
            ),
        ),
        (junk, Written(-2.0)),
        (short, written("remove_lines(1, 1)", lines=2)),
        (blank, Written()),
        (hostile, written('remove_lines(0, 1)\nnormalize("zero", "<i>0</i>")', "print('</script>')", lines=6)),
        (cut, written("keep_chunk()", 'remove_lines(3, 3)\nnormalize("The mus', lines=4, truncated=True)),
    ]


@pytest.fixture
def documents() -> list[Written_]:
    """The documents of `run`, with what was written for them."""
    return _documents()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, run_maker: Callable[[Path], Callable[..., Path]]) -> Path:
    """The run of `documents`; look, don't touch."""
    return run_maker(tmp_path_factory.mktemp("run"))(_documents())
