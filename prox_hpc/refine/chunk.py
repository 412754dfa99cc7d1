"""The chunk stage: documents cut into chunks, and for each chunk the program the refiner writes, greedily decoded."""

from dataclasses import dataclass, replace

from prox_hpc.errors import UserError
from prox_hpc.programs import Chunk, ChunkProgram, chunk_grammar, split_chunks
from prox_hpc.refine.tokens import Model
from prox_hpc.serve.client import Client
from prox_hpc.serve.prompt import render_chunk, template

# A line of more characters than this a token is over the limit for certain; it is not tokenised to find out.
_CHARS_PER_TOKEN = 64


@dataclass(frozen=True)
class Asked:
    """A chunk and the prompt about it; `ids` is None when it is oversized and not asked about."""

    chunk: Chunk
    ids: list[int] | None


@dataclass(frozen=True)
class Answered:
    """A chunk's program with the tokens it took: prompt tokens, generated tokens (end of sequence included)."""

    program: ChunkProgram
    prefill: int = 0
    decode: int = 0


@dataclass(frozen=True)
class ChunkStage:
    """Prompts and answers of the chunk stage. room: the longest prompt the model can still answer, in tokens."""

    model: Model
    prompt: str
    max_chunk_tokens: int
    max_new_tokens: int
    room: int
    grammar: str | None

    @staticmethod
    def of(
        model: Model, prompt: str, max_chunk_tokens: int, max_new_tokens: int, room: int, constrained: bool
    ) -> "ChunkStage":
        """UserError when the model has no room for a full chunk and its answer."""
        special = template(prompt).add_special_tokens
        around = len(model.encode([render_chunk(prompt, Chunk(0, ("",), 0, False))], special)[0])
        if max_chunk_tokens + around > room:
            raise UserError(
                f"refiner.max_chunk_tokens={max_chunk_tokens}: with {around} tokens of the prompt around it and "
                f"max_new_tokens={max_new_tokens}, more than {model.name} can read; set it to at most {room - around}"
            )
        # The server compiles a grammar once for each text of it (3 ms at a vocabulary of 2,048) and never forgets one,
        # so all chunks share one, with any line numbers. A looping string is ended by max_new_tokens: a bound in the
        # grammar costs milliseconds for every token of a string.
        grammar = chunk_grammar(max_string_chars=None) if constrained else None
        return ChunkStage(model, prompt, max_chunk_tokens, max_new_tokens, room, grammar)

    def prompts(self, text: str) -> list[Asked]:
        """A document's chunks with their prompts, tokenised together."""
        chunks = split_chunks(text, self._count, self.max_chunk_tokens)
        special = template(self.prompt).add_special_tokens
        rendered = [render_chunk(self.prompt, chunk) for chunk in chunks if not chunk.oversized]
        tokens = iter(self.model.encode(rendered, special))
        return [self._asked(chunk, None if chunk.oversized else next(tokens)) for chunk in chunks]

    async def program(self, client: Client, asked: Asked) -> Answered:
        """The program of one chunk; none, and no request, for an oversized one."""
        chunk = asked.chunk
        if asked.ids is None:
            return Answered(ChunkProgram(chunk.first_line, len(chunk.lines), None, oversized=True))
        answer = await client.generate(asked.ids, self.max_new_tokens, self.grammar, [self.model.eos_id])
        program = ChunkProgram(chunk.first_line, len(chunk.lines), answer.text, answer.truncated)
        return Answered(program, len(asked.ids), answer.tokens)

    def _asked(self, chunk: Chunk, ids: list[int] | None) -> Asked:
        # Counted line by line, a chunk can come out longer when it is tokenised whole; it must still fit the context.
        if ids is None or len(ids) > self.room:
            return Asked(replace(chunk, oversized=True), None)
        return Asked(chunk, ids)

    def _count(self, lines: list[str]) -> list[int]:
        far_over = self.max_chunk_tokens * _CHARS_PER_TOKEN
        short = self.model.encode([line if len(line) <= far_over else "" for line in lines])
        return [
            len(ids) if len(line) <= far_over else self.max_chunk_tokens + 1
            for line, ids in zip(lines, short, strict=True)
        ]
