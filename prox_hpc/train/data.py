"""What the training loop reads: endless streams of rows that depend on nothing but a seed and a row number.

Row `i` of a stream belongs to epoch `i // rows` and is chosen by that epoch's permutation, itself a function of (seed,
epoch). So a resumed run, or one on another number of ranks, sees the same rows in the same order, and the only state to
save is how many rows were consumed. `Packed` cuts memory-mapped token blocks into rows for pre-training (random access
measured at 70 Mtok/s, far from being the bottleneck); `Examples` packs prompt + answer pairs for fine-tuning.
"""

import json
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prox_hpc.errors import UserError

Ints = npt.NDArray[np.int64]
OFFSETS = "<i8"
"""Type of the offsets in a block's index of documents."""


@dataclass(frozen=True)
class Batch:
    """Rows of tokens. input_ids, labels: (rows, context) int64, labels[i] follows input_ids[i].

    weights: (rows, context) float32, how much each label counts (None: 1 each). position_ids: (rows, context) int64,
    from 0 in each packed example, by which transformers also keeps the examples from seeing each other (None: one
    sequence per row).
    """

    input_ids: Ints
    labels: Ints
    weights: npt.NDArray[np.float32] | None = None
    position_ids: Ints | None = None


class Stream(Protocol):
    """What `train` needs of its data."""

    context: int

    @property
    def rows(self) -> int:
        """Rows of one epoch."""

    def batch(self, start: int, count: int) -> Batch:
        """Rows start .. start + count of the endless stream."""

    def measure(self, start: int, count: int) -> tuple[int, float]:
        """Of the same rows: tokens that are not padding, and the sum of the label weights."""


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, rows: int) -> Ints:
    return np.random.default_rng([seed, epoch]).permutation(rows)


def shuffled(seed: int, start: int, count: int, rows: int) -> Ints:
    """Which row of the data the positions start .. start + count of the endless stream take; shape (count,)."""
    positions = np.arange(start, start + count, dtype=np.int64)
    epochs = positions // rows
    chosen = np.empty(count, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = _order(seed, int(epoch), rows)[positions[here] % rows]
    return chosen


class Packed:
    """Token blocks, one after the other as one stream, cut into rows of `context` + 1 tokens that overlap by one.

    indices: per block, where its documents begin (`NNNNN.idx`); without them `document` knows none.
    """

    def __init__(
        self, paths: Sequence[Path], dtype: str, context: int, seed: int, indices: Sequence[Path] = ()
    ) -> None:
        self.context, self.seed = context, seed
        maps = [np.memmap(path, dtype=dtype, mode="r") for path in paths if path.stat().st_size]
        self._maps = maps
        self._starts = np.cumsum([0, *(len(tokens) for tokens in maps)])
        self.total_tokens = int(self._starts[-1])
        found = [np.memmap(path, dtype=OFFSETS, mode="r") for path in indices if path.stat().st_size]
        self._documents = found
        self._firsts = np.cumsum([0, *(len(starts) for starts in found)])
        self.documents = int(self._firsts[-1])
        if self.rows < 1:
            raise UserError(
                f"the token blocks hold {self.total_tokens} tokens, fewer than one row of context={context} needs "
                f"({context + 1}); use a larger corpus or a smaller training.context"
            )

    @staticmethod
    def open(blocks: Path, context: int, seed: int) -> "Packed":
        """The blocks of a tokenize artifact: `NNNNN.bin` and `.idx`, described by `NNNNN.json` (dtype, tokens)."""
        paths = sorted(blocks.glob("*.bin"))
        if not paths:
            raise FileNotFoundError(f"{blocks}: no token blocks (*.bin)")
        dtypes = set()
        for path in paths:
            about: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
            dtypes.add(about["dtype"])
            expected = about["tokens"] * np.dtype(about["dtype"]).itemsize
            if path.stat().st_size != expected:
                raise ValueError(f"{path}: {path.stat().st_size} bytes, its manifest says {expected}")
        if len(dtypes) != 1:
            raise ValueError(f"{blocks}: blocks of several dtypes: {sorted(dtypes)}")
        return Packed(paths, dtypes.pop(), context, seed, sorted(blocks.glob("*.idx")))

    def document(self, number: int) -> Ints:
        """Token ids of a document of the stream (0 to `documents` - 1), with the EOS that ends it."""
        if not 0 <= number < self.documents:
            raise IndexError(f"document {number} of {self.documents}")
        block = int(np.searchsorted(self._firsts, number, side="right")) - 1
        starts, tokens = self._documents[block], self._maps[block]
        place = number - int(self._firsts[block])
        stop = int(starts[place + 1]) if place + 1 < len(starts) else len(tokens)
        return tokens[int(starts[place]) : stop].astype(np.int64)

    @property
    def rows(self) -> int:
        return (self.total_tokens - 1) // self.context

    def _read(self, start: int, count: int) -> Ints:
        """Tokens start .. start + count of the stream, which may lie in several blocks."""
        parts = []
        block = int(np.searchsorted(self._starts, start, side="right")) - 1
        while count:
            offset = start - int(self._starts[block])
            part = self._maps[block][offset : offset + count]
            parts.append(part)
            start, count, block = start + len(part), count - len(part), block + 1
        return np.concatenate(parts).astype(np.int64)

    def batch(self, start: int, count: int) -> Batch:
        chosen = shuffled(self.seed, start, count, self.rows)
        rows = np.stack([self._read(int(row) * self.context, self.context + 1) for row in chosen])
        return Batch(input_ids=rows[:, :-1], labels=rows[:, 1:])

    def measure(self, start: int, count: int) -> tuple[int, float]:
        return count * self.context, float(count * self.context)


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put items of these lengths into as few rows of `capacity` as best-fit decreasing needs; lists of item numbers.

    Every item must fit a row. The waste is small when there are short items to fill the gaps beside the long ones, and
    large when most are longer than half a row.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, row), ascending
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = bisect_left(free, (lengths[item], -1))
        if place < len(free):
            room, row = free.pop(place)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        if room > lengths[item]:
            insort(free, (room - lengths[item], row))
    return rows


class Examples:
    """Prompt + answer pairs for fine-tuning, several in a row, none seeing another, each followed by EOS.

    The labels of the answer and the EOS weigh 1, those of the prompt `lm_weight`. Examples that do not fit a row are
    left out and counted in `dropped`; `waste` is the padded share of all rows (tried on programs for web pages: 2 %).
    Examples share a row in every epoch; rows are shuffled anew each time.
    """

    def __init__(
        self,
        examples: Iterable[tuple[Sequence[int], Sequence[int]]],
        context: int,
        seed: int,
        *,
        eos: int,
        lm_weight: float,
    ) -> None:
        self.context, self.seed, self.eos, self.lm_weight = context, seed, eos, lm_weight
        self._tokens: list[npt.NDArray[np.int32]] = []
        self._prompts: list[int] = []
        self.dropped = 0
        for prompt, answer in examples:
            if len(prompt) + len(answer) > context:  # the EOS is a label only, it takes no place among the inputs
                self.dropped += 1
                continue
            self._tokens.append(np.array([*prompt, *answer, eos], dtype=np.int32))
            self._prompts.append(len(prompt))
        if not self._tokens:
            raise UserError(
                f"none of {self.dropped} examples fits training.context={context}; raise it or shorten the prompts"
            )
        self._rows = pack([len(tokens) - 1 for tokens in self._tokens], context)
        self._count = np.array([sum(len(self._tokens[item]) - 1 for item in row) for row in self._rows])
        self._weight = np.array([float(self._row(row)[2].sum()) for row in range(len(self._rows))])
        self.waste = 1 - float(self._count.sum()) / (len(self._rows) * context)

    @property
    def rows(self) -> int:
        return len(self._rows)

    def __len__(self) -> int:
        """Examples of one epoch."""
        return len(self._tokens)

    def _row(self, row: int) -> tuple[Ints, Ints, npt.NDArray[np.float32], Ints]:
        """Inputs, labels, weights, positions of one packed row; the padded tail is one more sequence of weight 0."""
        inputs = np.full(self.context, self.eos, dtype=np.int64)
        labels = np.full(self.context, self.eos, dtype=np.int64)
        weights = np.zeros(self.context, dtype=np.float32)
        positions = np.empty(self.context, dtype=np.int64)
        at = 0
        for item in self._rows[row]:
            tokens, prompt = self._tokens[item], self._prompts[item]
            end = at + len(tokens) - 1
            inputs[at:end], labels[at:end] = tokens[:-1], tokens[1:]
            weights[at:end] = 1.0
            weights[at : at + max(prompt - 1, 0)] = (
                self.lm_weight
            )  # the prompt's last token predicts the answer's first
            positions[at:end] = np.arange(end - at)
            at = end
        positions[at:] = np.arange(self.context - at)
        return inputs, labels, weights, positions

    def batch(self, start: int, count: int) -> Batch:
        columns = zip(*(self._row(int(row)) for row in shuffled(self.seed, start, count, self.rows)), strict=True)
        inputs, labels, weights, positions = (np.stack(column) for column in columns)
        return Batch(inputs, labels, weights, positions)

    def measure(self, start: int, count: int) -> tuple[int, float]:
        chosen = shuffled(self.seed, start, count, self.rows)
        return int(self._count[chosen].sum()), float(self._weight[chosen].sum())
