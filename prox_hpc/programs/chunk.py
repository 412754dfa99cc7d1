"""Documents cut into the chunks a refiner reads, with the line numbers it sees.

Lines are numbered over the whole document, so that a chunk's program names the document's lines, and a chunk knows
which lines it holds. Cutting is greedy by lines; the tokenizer is passed in and called once for a document, because one
call a line is what made the original slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

DEFAULT_CHUNK_TOKENS: Final = 1_500
"""Tokens of a chunk as shown to the refiner (ProX, algorithm 1)."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Successive lines of a document.

    first_line: the number of the first line in the document, 0-based. lines: without numbers and line breaks.
    tokens: as counted on the numbered lines. oversized: a single line longer than the limit, not for the refiner.
    """

    first_line: int
    lines: tuple[str, ...]
    tokens: int
    oversized: bool

    @property
    def numbered(self) -> str:
        """The chunk as the refiner sees it."""
        return number_lines(self.lines, self.first_line)


def number_line(number: int, line: str) -> str:
    """One line as shown to the refiner: `[NNN]text`, at least three digits."""
    return f"[{number:03d}]{line}"


def number_lines(lines: Iterable[str], first_line: int = 0) -> str:
    """Lines as shown to the refiner, joined by line feeds, the first one numbered `first_line`."""
    return "\n".join(number_line(number, line) for number, line in enumerate(lines, first_line))


def split_chunks(
    text: str, count_tokens: Callable[[list[str]], list[int]], max_tokens: int = DEFAULT_CHUNK_TOKENS
) -> list[Chunk]:
    """Cut a document into chunks of whole lines, each of at most `max_tokens` tokens.

    count_tokens: the number of tokens of each string; called once, with every numbered line including its line feed,
        so that the counts of a chunk's lines add up to the chunk's (to a bound, where tokens merge across lines).
    A single line over the limit is a chunk of its own, flagged `oversized`. The chunks' lines, concatenated, are the
    document's. Raises ValueError if `count_tokens` answers with another number of counts (an error of the caller).
    """
    lines = text.split("\n")
    counts = count_tokens([number_line(number, line) + "\n" for number, line in enumerate(lines)])
    if len(counts) != len(lines):
        raise ValueError(f"{len(counts)} counts of tokens for {len(lines)} lines")
    return [
        Chunk(start, tuple(lines[start:stop]), tokens, tokens > max_tokens)
        for start, stop, tokens in cut_lines(counts, max_tokens)
    ]


def cut_lines(counts: Sequence[int], max_tokens: int = DEFAULT_CHUNK_TOKENS) -> Iterator[tuple[int, int, int]]:
    """Where `split_chunks` cuts lines of so many tokens: first line, line after the last, and tokens of each chunk."""
    start = held = 0
    for number, tokens in enumerate(counts):
        if number > start and held + tokens > max_tokens:
            yield start, number, held
            start, held = number, 0
        held += tokens
    yield start, len(counts), held
