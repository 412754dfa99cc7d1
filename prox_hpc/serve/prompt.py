"""What a refiner is shown: prompt templates, and the cut of documents too long for the doc stage.

A refiner must be asked exactly as it was trained, so training and serving both render with this file. Everything here
is pure text; tokenising is the caller's. The answer (a program) follows the rendered prompt directly and ends with the
end-of-sequence token.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prox_hpc.errors import UserError
from prox_hpc.programs import Chunk, number_lines

CUT_MARK = "\n[...]\n"
"""Stands for what was left out of the middle of a long document."""

_CHARS_PER_TOKEN = 64
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Template:
    """How a prompt is built around a document's text or a chunk's numbered lines.

    doc, chunk: what stands before and after. add_special_tokens: whether the tokenizer puts its own begin-of-sequence
    token before the prompt. one_reading: the doc stage is shown numbered lines too, opened like a chunk and told apart
    only by how it closes, so that a server with a prefix cache reads a page once for both stages.
    """

    doc: tuple[str, str]
    chunk: tuple[str, str]
    add_special_tokens: bool
    one_reading: bool = False


_LLAMA2_BEFORE = "[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant.\n<</SYS>>\n\n"
_LLAMA2_AFTER = " [/INST]"

TEMPLATES: dict[str, Template] = {
    # Ours: the marks are single tokens of our tokenizer.
    "tags": Template(("<doc>\n", "\n</doc>\n"), ("<chunk>\n", "\n</chunk>\n"), add_special_tokens=False),
    # Ours too, for one reading of a page. What is asked stands at the end, where all of the page has been read.
    "page": Template(
        ("<doc>\n", "\n</doc>\n"), ("<doc>\n", "\n</chunk>\n"), add_special_tokens=False, one_reading=True
    ),
    # The released ProX refiners: Llama-2's chat format with its stock system sentence; `<s>` comes from the tokenizer.
    # Their own scripts right-cut this prompt at 2,000 tokens, closing mark and all; we cut the document instead.
    "llama2": Template(
        (_LLAMA2_BEFORE, _LLAMA2_AFTER),
        (_LLAMA2_BEFORE + "[doc]\n", "\n[/doc]" + _LLAMA2_AFTER),
        add_special_tokens=True,
    ),
}


def template(name: str) -> Template:
    """The template of that name; UserError when there is none."""
    if name not in TEMPLATES:
        raise UserError(f"refiner.prompt={name}: no such prompt template; choose one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def render_doc(name: str, text: str) -> str:
    """Doc-stage prompt: the text of a document (already cut, see `cut_document`) in template `name`, its lines numbered
    where both stages share one reading."""
    before, after = template(name).doc
    shown = number_lines(text.split("\n")) if template(name).one_reading else text
    return f"{before}{shown}{after}"


def render_chunk(name: str, chunk: Chunk) -> str:
    """Chunk-stage prompt: the chunk's lines, numbered over the whole document, in template `name`."""
    before, after = template(name).chunk
    return f"{before}{number_lines(chunk.lines, chunk.first_line)}{after}"


def tokenizable(text: str) -> str:
    """`text` with lone surrogates, which tokenizers refuse, shown as U+FFFD; same length, so offsets still fit."""
    return text if text.isascii() else _SURROGATE.sub("�", text)


def cut_document(text: str, max_tokens: int, offsets: Callable[[str], Sequence[tuple[int, int]]]) -> tuple[str, bool]:
    """Head and tail of a document of more than `max_tokens` tokens, joined by `CUT_MARK`; and whether it was cut.

    offsets(text): (start, end) character span of every token of `text`, in order. Head and tail get half of the
    tokens each; the mark and a token split anew at the seams may add a few.
    """
    window = max_tokens * _CHARS_PER_TOKEN
    # Far too long to be worth tokenising whole (10 MB in one line): no tokenizer averages 64 characters a token.
    huge = len(text) > 2 * window
    head_text, tail_text = (text[:window], text[-window:]) if huge else (text, text)
    head_spans = offsets(head_text)
    if not huge and len(head_spans) <= max_tokens:
        return text, False
    tail_spans = offsets(tail_text) if huge else head_spans
    tail_tokens = max_tokens // 2
    head = head_text[: head_spans[: max_tokens - tail_tokens][-1][1]] if head_spans else ""
    tail = tail_text[tail_spans[-tail_tokens:][0][0] :] if tail_spans and tail_tokens else ""
    return head + CUT_MARK + tail, True
