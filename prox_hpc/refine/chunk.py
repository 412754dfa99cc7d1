"""The chunk stage: documents cut into chunks, and the prompts that ask the refiner for each chunk's program.

A document is tokenised once: its numbered lines all together, cut afterwards where the tokens end a line. Tokenising is
most of what the host does (0.8M tokens a second for a core with `tokenizers`), so a second pass would nearly halve it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from prox_hpc.errors import UserError
from prox_hpc.programs import ChunkProgram, chunk_grammar, cut_lines, number_line
from prox_hpc.refine.tokens import Model
from prox_hpc.serve.prompt import Template, template

# A line of more characters than this a token is over the limit for certain; it is not tokenised to find out.
_CHARS_PER_TOKEN = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """A chunk's place in its document and the prompt about it; ids: None if it is oversized and not asked about."""

    first_line: int
    line_count: int
    ids: list[int] | None

    def program(self, text: str | None, truncated: bool = False) -> ChunkProgram:
        """The chunk's program, once it is written."""
        return ChunkProgram(self.first_line, self.line_count, text, truncated, oversized=self.ids is None)


@dataclass(frozen=True)
class ChunkStage:
    """Prompts of the chunk stage.

    room: the longest prompt the model can still answer, in tokens. before, after: what stands around a chunk's lines,
    each of which ends with a line feed, as tokens. line_ends: tokens that end a line.
    """

    model: Model
    max_chunk_tokens: int
    max_new_tokens: int
    room: int
    grammar: str | None
    before_text: str
    add_special_tokens: bool
    before: list[int]
    after: list[int]
    line_ends: frozenset[int]

    @staticmethod
    def of(
        model: Model, prompt: str, max_chunk_tokens: int, max_new_tokens: int, room: int, constrained: bool
    ) -> "ChunkStage":
        """UserError when the model has no room for a full chunk and its answer."""
        chosen = template(prompt)
        before, after, clean = _around(model, chosen)
        around = len(before) + len(after)
        if max_chunk_tokens + around > room:
            raise UserError(
                f"refiner.max_chunk_tokens={max_chunk_tokens}: with {around} tokens of the prompt around it and "
                f"max_new_tokens={max_new_tokens}, more than {model.name} can read; set it to at most {room - around}"
            )
        # The server compiles a grammar once for each text of it (3 ms at a vocabulary of 2,048) and never forgets one,
        # so all chunks share one, with any line numbers. A looping string is ended by max_new_tokens: a bound in the
        # grammar costs milliseconds for every token of a string.
        grammar = chunk_grammar(max_string_chars=None) if constrained else None
        return ChunkStage(
            model,
            max_chunk_tokens,
            max_new_tokens,
            room,
            grammar,
            chosen.chunk[0] if clean else "",
            chosen.add_special_tokens and clean,
            before,
            after,
            model.line_ends(),
        )

    def prompts(self, texts: Sequence[str]) -> list[list[Asked]]:
        """For each document its chunks with their prompts; all documents are tokenised together."""
        far_over = self.max_chunk_tokens * _CHARS_PER_TOKEN
        numbered = []
        for text in texts:
            lines = enumerate(text.split("\n"))
            numbered.append([number_line(i, line if len(line) <= far_over else "") + "\n" for i, line in lines])
        whole = self._encode(["".join(lines) for lines in numbered])
        return [self._cut(text, ids, lines) for text, ids, lines in zip(texts, whole, numbered, strict=True)]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of texts as they stand in a prompt: some tokenizers begin a text of its own with a blank."""
        encoded = self.model.encode([self.before_text + text for text in texts], self.add_special_tokens)
        return [ids[len(self.before) :] for ids in encoded] if self.before_text else encoded

    def _cut(self, text: str, ids: list[int], lines: list[str]) -> list[Asked]:
        """Cut a document's tokens into prompts. lines: as they were tokenised."""
        ends = _places(ids, self.line_ends)
        if len(ends) != len(lines) or ends[-1] != len(ids):  # a token reaches over the end of a line: no place to cut
            by_line = self._encode(lines)
            ids, ends = [token for line in by_line for token in line], list(accumulate(map(len, by_line)))
        counts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        if len(text) > (far_over := self.max_chunk_tokens * _CHARS_PER_TOKEN):
            over = (len(line) > far_over for line in text.split("\n"))
            counts = [self.max_chunk_tokens + 1 if far else count for far, count in zip(over, counts, strict=True)]
        asked = []
        for start, stop, tokens in cut_lines(counts, self.max_chunk_tokens):
            prompt = self.before + ids[ends[start - 1] if start else 0 : ends[stop - 1]] + self.after
            fits = tokens <= self.max_chunk_tokens and len(prompt) <= self.room
            asked.append(Asked(start, stop - start, prompt if fits else None))
        return asked


def _places(ids: list[int], tokens: frozenset[int]) -> list[int]:
    """The places right behind these tokens; there is one such token as a rule, and `index` is fast."""
    if len(tokens) != 1:
        return [place for place, token in enumerate(ids, 1) if token in tokens]
    (wanted,) = tokens
    places: list[int] = []
    place = 0
    for _ in range(ids.count(wanted)):
        place = ids.index(wanted, place) + 1
        places.append(place)
    return places


def _around(model: Model, chosen: Template) -> tuple[list[int], list[int], bool]:
    """The tokens before and after a chunk's lines, read off a prompt about a chunk of one line.

    Also whether tokens end where the lines begin and end; if not, the parts are tokenised by themselves.
    """
    before, after = chosen.chunk
    line, after = number_line(0, "line") + "\n", after.removeprefix("\n")  # which is the last line's line feed
    whole, spans = model.encode_with_offsets(before + line + after, chosen.add_special_tokens)
    starts = [start for start, _ in spans]
    if len(before) in starts and len(before + line) in starts:
        return whole[: starts.index(len(before))], whole[starts.index(len(before + line)) :], True
    return model.encode([before], chosen.add_special_tokens)[0], model.encode([after])[0], False
