"""Rows are a pure function of (seed, number); packing loses nothing and mixes nothing."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prox_hpc.config import Shape
from prox_hpc.errors import UserError
from prox_hpc.train.data import Examples, Packed, pack
from prox_hpc.train.shapes import build_model

CONTEXT = 8


def write_blocks(folder: Path, sizes: list[int], dtype: str = "<u2") -> Path:
    """Blocks that hold 0, 1, 2, ... in order."""
    folder.mkdir(exist_ok=True)
    tokens = np.arange(sum(sizes), dtype=dtype)
    for i, (start, size) in enumerate(zip(np.cumsum([0, *sizes]), sizes, strict=False)):
        (folder / f"{i:05d}.bin").write_bytes(tokens[start : start + size].tobytes())
        (folder / f"{i:05d}.json").write_text(json.dumps({"dtype": dtype, "tokens": size}))
    return folder


def test_several_blocks_are_one_stream_and_an_epoch_takes_every_row_once(tmp_path: Path) -> None:
    stream = Packed.open(write_blocks(tmp_path, [3, 0, 21, 1, 18]), CONTEXT, seed=1)
    assert (stream.total_tokens, stream.rows) == (43, 5)
    batch = stream.batch(0, 5)
    assert (batch.labels == batch.input_ids + 1).all()
    assert sorted(batch.input_ids[:, 0].tolist()) == [0, 8, 16, 24, 32]
    assert (batch.input_ids == batch.input_ids[:, :1] + np.arange(CONTEXT)).all()
    assert stream.measure(3, 4) == (32, 32.0)


def test_rows_do_not_depend_on_how_they_are_asked_for(tmp_path: Path) -> None:
    blocks = write_blocks(tmp_path, [100, 61])
    together = Packed.open(blocks, CONTEXT, seed=7).batch(0, 60).input_ids  # three epochs of 20 rows
    stream = Packed.open(blocks, CONTEXT, seed=7)
    backwards = [stream.batch(row, 1).input_ids[0] for row in reversed(range(60))]
    assert (together == np.stack(backwards)[::-1]).all()
    epochs = together.reshape(3, 20, CONTEXT)
    assert (np.sort(epochs[:, :, 0]) == np.sort(epochs[0, :, 0])).all()
    assert not (epochs[0] == epochs[1]).all()
    assert not (together == Packed.open(blocks, CONTEXT, seed=8).batch(0, 60).input_ids).all()


def test_wide_ids_survive(tmp_path: Path) -> None:
    (tmp_path / "0.bin").write_bytes(np.array([70_000] * 9, dtype="<u4").tobytes())
    assert (Packed([tmp_path / "0.bin"], "<u4", CONTEXT, 0).batch(0, 1).labels == 70_000).all()


def test_too_few_tokens_and_damaged_blocks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="8 tokens, fewer than one row of context=8"):
        Packed.open(write_blocks(tmp_path / "few", [8]), CONTEXT, 0)
    blocks = write_blocks(tmp_path / "cut", [40])
    (blocks / "00000.bin").write_bytes(b"ab")
    with pytest.raises(ValueError, match="its manifest says 80"):
        Packed.open(blocks, CONTEXT, 0)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 50), max_size=80))
def test_packing_keeps_every_item_once_and_within_the_row(lengths: list[int]) -> None:
    rows = pack(lengths, 50)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    sums = [sum(lengths[item] for item in row) for row in rows]
    assert all(total <= 50 for total in sums)
    assert sum(total <= 25 for total in sums) <= 1  # two half-empty rows would have been one


def examples(count: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Prompts and answers of the lengths programs for small pages have."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        prompt = rng.integers(1, 100, int(rng.lognormal(4.3, 0.6)) + 1).tolist()
        pairs.append((prompt, rng.integers(1, 100, rng.integers(1, 30)).tolist()))
    return pairs


def test_examples_waste_little_and_count_what_is_too_long() -> None:
    pairs = examples(500)
    data = Examples(pairs, 256, 3, eos=0, lm_weight=0.1)
    too_long = sum(len(prompt) + len(answer) > 256 for prompt, answer in pairs)
    assert data.dropped == too_long > 0
    assert len(data) == 500 - too_long
    assert data.waste < 0.05
    with pytest.raises(UserError, match="none of 1 examples fits"):
        Examples([([1, 2], [3, 4, 5])], 4, 0, eos=0, lm_weight=1)


def test_weights_of_prompt_answer_and_padding() -> None:
    data = Examples([([5, 6, 7], [8, 9]), ([3], [4])], 8, 0, eos=0, lm_weight=0.25)
    batch = data.batch(0, 1)
    assert batch.weights is not None
    assert batch.position_ids is not None
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 3, 4, 0]]
    assert batch.labels.tolist() == [[6, 7, 8, 9, 0, 4, 0, 0]]
    assert batch.weights.tolist() == [[0.25, 0.25, 1, 1, 1, 1, 1, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 0]]
    assert data.measure(0, 3) == (21, 3 * 5.5)


def test_an_epoch_holds_every_example_once() -> None:
    pairs = [(prompt, answer) for prompt, answer in examples(60) if len(prompt) + len(answer) <= 256]
    data = Examples(pairs, 256, 3, eos=0, lm_weight=0)
    batch = data.batch(data.rows, data.rows)
    assert batch.position_ids is not None
    found = []
    for inputs, positions in zip(batch.input_ids, batch.position_ids, strict=True):
        found += [piece.tolist() for piece in np.split(inputs, np.flatnonzero(positions == 0)[1:])]
    assert sorted(p + a for p, a in pairs) == sorted(piece for piece in found if any(piece))


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_packed_examples_do_not_see_each_other(architecture: str) -> None:
    pairs = [pair for pair in examples(8) if len(pair[0]) + len(pair[1]) <= 256]
    data = Examples(pairs, 256, 0, eos=0, lm_weight=0.5)
    model = build_model(Shape(vocab_size=128, architecture=architecture), 0).eval()
    batch = data.batch(0, data.rows)
    assert batch.position_ids is not None
    inputs, places = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.position_ids)
    with torch.no_grad():
        packed = model(inputs, position_ids=places, use_cache=False).logits
        for row, positions in enumerate(batch.position_ids):
            edges = [*np.flatnonzero(positions == 0), 256]
            for start, stop in itertools.pairwise(edges):
                alone = model(inputs[row : row + 1, start:stop]).logits
                torch.testing.assert_close(packed[row, start:stop], alone[0], atol=1e-4, rtol=1e-4)
