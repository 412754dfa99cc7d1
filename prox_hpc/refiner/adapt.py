"""Step `adapt`: fine-tune the refiner on labels, from scratch, with the one DeepSpeed loop.

One model serves both stages; the tag that opens a prompt tells it which. Beside the loss on the answer, every chunk is
supervised line by line: at the end of each line the label is not the next line's mark, which is no news, but what the
program has to say there (the number of a line at which a removal starts or has ended, or "removing", or "keeping").
An answer holds only some five numbers a page, so most of what a page has to teach stands at its line ends. The server
never asks the model at those positions, so nothing changes for its user.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from prox_hpc.errors import UserError
from prox_hpc.programs import VERSION, parse, removed_lines
from prox_hpc.publish import publish_json
from prox_hpc.refiner.labels import Label, read
from prox_hpc.refiner.tokenizer import FOLDER, MARKED_LINES
from prox_hpc.serve.prompt import template
from prox_hpc.task import Task
from prox_hpc.train import schedule
from prox_hpc.train.data import Examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GRACEFUL = True
"""The worker's signal handlers set `task.stop`, which the training loop looks at."""
MODEL: Final = "model"
LINE_WEIGHT: Final = 0.5
"""Weight of the label at a line's end, beside the 1 of an answer's token."""
WORDS_BLURRED: Final = 0.12
LINES_BLURRED: Final = 0.10
"""Share of words replaced, and of lines that lose most of theirs. Measured after 2.4M tokens on pages of unseen sites:
doc F1 0.73 without and 0.88 with, F1 of the lines told to be noise at their ends 0.72 and 0.81."""
CODE_SCALE: Final = 0.28
"""Ten times the other embeddings' scale: Adam moves every weight by about the learning rate (3e-3) a step, which would
wipe out a code of their size (0.02) before the model can use it."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class RefinerExamples(Examples):
    """Labels as rows for the training loop, with the lines' own labels (see above)."""

    def __init__(
        self,
        examples: list[Label],
        tokenizer: "PreTrainedTokenizerBase",
        *,
        prompt: str,
        context: int,
        seed: int,
        lm_weight: float,
    ) -> None:
        special = template(prompt).add_special_tokens
        asked = [e.prompt for e in examples]
        prompts = tokenizer(asked, add_special_tokens=special, split_special_tokens=True)["input_ids"]
        answers = tokenizer([e.program for e in examples], add_special_tokens=False)["input_ids"]
        ends = LineEnds(tokenizer, prompt)
        fitting = [i for i in range(len(examples)) if len(prompts[i]) + len(answers[i]) <= context]
        self._ends = [ends.labels(examples[i], np.array(prompts[i])) for i in fitting]
        blur = Blur(tokenizer, np.random.default_rng(seed))
        pairs = [(blur(prompt, answer), answer) for prompt, answer in zip(prompts, answers, strict=True)]
        super().__init__(pairs, context, seed, eos=tokenizer.eos_token_id, lm_weight=lm_weight)

    def _row(self, row: int) -> tuple[Ints, Ints, Floats, Ints]:
        inputs, labels, weights, positions = super()._row(row)
        at = 0
        for item in self._rows[row]:
            where, what = self._ends[item]
            labels[at + where], weights[at + where] = what, LINE_WEIGHT
            at += len(self._tokens[item]) - 1
        return inputs, labels, weights, positions


class Blur:
    """Replaces some words of a prompt by random ones, so that a model cannot learn the seed pages' phrases by heart.

    A word that the answer holds (what it normalises) stays, and so does what is no word: marks, digits, punctuation.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", rng: np.random.Generator) -> None:
        added = set(tokenizer.get_added_vocab().values())
        vocabulary = tokenizer.get_vocab().items()
        bare = ((token.removeprefix("\u0120"), i) for token, i in vocabulary if i not in added)  # U+0120: a blank
        words = [i for text, i in bare if text.isascii() and text.isalpha()]
        self.words = np.array(sorted(words))
        self.is_word = np.zeros(len(tokenizer), dtype=bool)
        self.is_word[self.words] = True
        self.line_feed: int = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
        self.rng = rng

    def __call__(self, prompt: Sequence[int], answer: Sequence[int]) -> list[int]:
        """The prompt's token ids, blurred: WORDS_BLURRED of all words, and most words of LINES_BLURRED of the lines."""
        ids = np.array(prompt)
        line = np.cumsum(ids == self.line_feed)
        rates = np.where(self.rng.random(line[-1] + 1) < LINES_BLURRED, 0.8, WORDS_BLURRED)
        chosen = self.is_word[ids] & ~np.isin(ids, answer) & (self.rng.random(len(ids)) < rates[line])
        blurred: list[int] = np.where(chosen, self.rng.choice(self.words, len(ids)), ids).tolist()
        return blurred


class LineEnds:
    """What the lines of a chunk prompt are labelled with."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", prompt: str) -> None:
        self.numbers = _ids(tokenizer, map(str, range(MARKED_LINES)))
        self.keeping, self.removing = _ids(tokenizer, ["keep_chunk()", "remove_lines("])
        self.line_feed: int = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
        self.before = template(prompt).chunk[0].count("\n")

    def labels(self, example: Label, prompt: Ints) -> tuple[Ints, Ints]:
        """Positions in `prompt` (token ids) of its lines' line feeds, and the labels there; empty for the doc stage.

        Lines from number 300 on have no number of one token and get no label.
        """
        removed = removed_lines(parse(example.program, "chunk"), example.lines, example.first_line)
        numbers = range(example.first_line, min(example.first_line + example.lines, MARKED_LINES))
        feeds = np.flatnonzero(prompt == self.line_feed)[self.before :][: len(numbers)]
        return feeds, np.array([self._label(number, removed) for number in numbers], dtype=np.int64)

    def _label(self, line: int, removed: set[int]) -> int:
        before = line - 1 in removed
        if line in removed:
            return self.removing if before else self.numbers[line]
        return self.numbers[line - 1] if before else self.keeping


def _ids(tokenizer: "PreTrainedTokenizerBase", tokens: Iterable[str]) -> list[int]:
    ids: Any = tokenizer.convert_tokens_to_ids(list(tokens))
    return list(ids)


def start_model(shape: dict[str, Any], tokenizer: "PreTrainedTokenizerBase", seed: int) -> "PreTrainedModel":
    """A fresh model that starts out knowing the order of the numbers.

    Mark [k], number k as it is read and number k as it is written begin with the same code: sines and cosines of k with
    wavelengths from 2.5 to 1,200, as in the original Transformer's positions. So "the number of that line", "the one
    before" and "the next one" are one linear map each for all lines, rare ones too, instead of 300 things to learn.
    """
    import torch

    from prox_hpc.train.shapes import build_model

    if len(tokenizer) > shape["vocab_size"]:
        raise UserError(f"refiner.shape.vocab_size={shape['vocab_size']}: the tokenizer has {len(tokenizer)} tokens")
    model = build_model(shape, seed, eos_token_id=tokenizer.eos_token_id)
    read: Any = model.get_input_embeddings().weight
    written: Any = model.get_output_embeddings().weight
    half = shape["hidden_size"] // 2
    phase = 2 * np.pi * np.arange(MARKED_LINES)[:, None] / np.geomspace(2.5, 1200, half)
    code = CODE_SCALE * torch.from_numpy(np.concatenate([np.sin(phase), np.cos(phase)], axis=1)).to(read.dtype)
    marks = _ids(tokenizer, (f"[{line:03d}]" for line in range(MARKED_LINES)))
    numbers = _ids(tokenizer, map(str, range(MARKED_LINES)))
    with torch.no_grad():
        for ids in (marks, numbers):  # a little of what they were, so that mark and number differ
            read[ids] = code + 0.3 * read[ids]
        if written is not read:
            written[numbers] = code
    return model


def run(task: Task) -> None:
    """Train and publish `model/`, `losses.jsonl` and, last, `refiner.json`; every rank runs this."""
    from transformers import AutoTokenizer

    from prox_hpc.train.loop import forget, train

    if (task.out / "refiner.json").exists():
        return
    config = task.config
    settings = schedule.settings_of(task.step)
    tokenizer = AutoTokenizer.from_pretrained(task.input("tokenizer") / FOLDER)
    examples = read(task.input("labels"))
    if not examples:
        raise UserError("refiner.seed_corpus: its documents carry no gold, so nothing can be learnt; choose another")
    stream = RefinerExamples(
        examples,
        tokenizer,
        prompt=config["prompt"],
        context=settings.context,
        seed=config["seed"],
        lm_weight=config["lm_weight"],
    )
    model = start_model(config["shape"], tokenizer, config["seed"])
    device = task.step.runtime.get("device", "cpu")
    summary = train(model, stream, settings, task, tokenizer=tokenizer, device=device, export_last=task.out / MODEL)
    if task.rank == 0:
        about = {
            "prompt": config["prompt"],
            "program_version": VERSION,
            "parameters": summary.parameters,
            "examples": len(stream),
            "too_long": stream.dropped,
            "padding": stream.waste,
            "training": asdict(summary),
        }
        publish_json(task.out / "refiner.json", about)
        forget(task)
