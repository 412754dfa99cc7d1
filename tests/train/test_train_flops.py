"""The exact FLOP count against torch's counter, and Kaplan's rule against the paper's figure."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prox_hpc.config import Shape
from prox_hpc.train.flops import inference_flops, training_flops
from prox_hpc.train.shapes import build_model, count_parameters


@pytest.mark.parametrize("tied", [False, True])
def test_exact_count_is_what_torch_counts(tied: bool) -> None:
    shape = Shape(tie_word_embeddings=tied)
    model = build_model(shape, 0)
    model.set_attn_implementation("eager")  # torch's counter does not see the CPU's fused attention
    counts = count_parameters(shape)
    size = {"layers": shape.num_hidden_layers, "hidden": shape.hidden_size}
    head = shape.vocab_size * shape.hidden_size
    rows, context = 2, 256
    tokens = torch.zeros(rows, context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(tokens, labels=tokens).loss.backward()
    ours = training_flops(counts.minus_one_embedding, rows * context, context=context, head=head, tied=tied, **size)
    assert ours.exact == pytest.approx(counter.get_total_flops(), rel=2e-3)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(tokens, logits_to_keep=1)
    ours = inference_flops(counts.minus_one_embedding, rows * context, requests=rows, head=head, tied=tied, **size)
    assert ours.exact == pytest.approx(counter.get_total_flops(), rel=2e-3)


def test_decoding_costs_as_much_as_reading_by_the_rule_and_a_head_per_token_exactly() -> None:
    read, written = inference_flops(100, 10, 5), inference_flops(100, 15)
    assert read.kaplan == written.kaplan == 2 * 100 * 15
    with_head = inference_flops(100, 10, 5, head=40)
    assert with_head.exact == 2 * 60 * 15 + 2 * 40 * 5


def test_refining_one_dump_with_the_small_refiner() -> None:
    """Paper, E.3: two passes of the 0.3B refiner over 62.5B and 19B tokens, about 5e19 FLOPs."""
    assert inference_flops(313_324_800, 62.5e9 + 19e9).kaplan == pytest.approx(5.11e19, rel=1e-3)
    assert 5.11e19 / training_flops(709_830_144, 1, layers=0, hidden=0, context=0).kaplan == pytest.approx(
        12.0e9, rel=1e-2
    )
