"""The doc stage: one forward pass a document gives a score, log p(keep) - log p(drop) of its first answer token.

Nothing is decoded, so a document costs its prompt and no more, any threshold can be set afterwards, and threshold 0
is what greedy decoding between the two answers would say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from prox_hpc.errors import UserError
from prox_hpc.refine.tokens import Model
from prox_hpc.serve.prompt import CUT_MARK, cut_document, render_doc, template

# A text of more characters than this a token is longer than the limit for certain; it is not tokenised to find out.
_CHARS_PER_TOKEN = 64


@dataclass(frozen=True)
class DocPrompt:
    """What the doc stage asks about one document. cut: only its head and tail are shown."""

    ids: list[int]
    cut: bool


@dataclass(frozen=True)
class DocStage:
    """Prompts and answers of the doc stage.

    room: the longest prompt the model can still answer, in tokens. prefix: what both answers begin with; then keep_id
    or drop_id follows.
    """

    model: Model
    prompt: str
    max_doc_tokens: int
    room: int
    prefix: list[int]
    keep_id: int
    drop_id: int

    @staticmethod
    def of(model: Model, prompt: str, max_doc_tokens: int, room: int, answers: Sequence[str]) -> "DocStage":
        """Find the first token in which the two answers differ; UserError when there is none, or no room."""
        keep, drop = model.encode(answers)
        common = 0
        while common < min(len(keep), len(drop)) and keep[common] == drop[common]:
            common += 1
        if common == min(len(keep), len(drop)):
            raise UserError(
                f"refiner.doc_answers={list(answers)}: one begins with the other; give two different answers"
            )
        stage = DocStage(model, prompt, max_doc_tokens, room, keep[:common], keep[common], drop[common])
        around = len(stage._encode([CUT_MARK])[0]) + common
        if max_doc_tokens + around > room:
            raise UserError(
                f"refiner.max_doc_tokens={max_doc_tokens}: with {around} tokens of the prompt around it, more than the "
                f"{room} tokens that {model.name} can read; set it to at most {room - around}"
            )
        return stage

    def prompts(self, texts: Sequence[str]) -> list[DocPrompt]:
        """The prompts of documents, tokenised together; only those over the limit are looked at a second time."""
        limit = self.max_doc_tokens
        # one blank stands for a text far too long to be worth tokenising whole
        tokens = self._encode([text if len(text) <= limit * _CHARS_PER_TOKEN else " " for text in texts])
        return [
            DocPrompt(ids + self.prefix, False)
            if len(ids) <= limit and len(text) <= limit * _CHARS_PER_TOKEN
            else self._cut_prompt(text)
            for text, ids in zip(texts, tokens, strict=True)
        ]

    def _cut_prompt(self, text: str) -> DocPrompt:
        limit = self.max_doc_tokens
        while True:
            shown, cut = cut_document(text, limit, self.model.offsets)
            ids = self._encode([shown])[0] + self.prefix
            if len(ids) <= self.room:
                return DocPrompt(ids, cut)
            # Head or tail tokenised longer than in the whole text; with its lines numbered, perhaps many times as long.
            limit = max(limit - (len(ids) - self.room), limit // 2)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        special = template(self.prompt).add_special_tokens
        return self.model.encode([render_doc(self.prompt, text) for text in texts], special)
