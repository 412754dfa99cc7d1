"""Parameter counts: the published ones by formula, and the formula against real models."""

import subprocess
import sys

import pytest

from prox_hpc.config import Shape
from prox_hpc.errors import UserError
from prox_hpc.train.shapes import Parameters, build_model, count_parameters, parameters_of


def llama(hidden: int, ffn: int, layers: int, heads: int, kv: int) -> Shape:
    return Shape(hidden, ffn, layers, heads, kv, vocab_size=32_000, max_position_embeddings=2048)


def pythia(hidden: int, ffn: int, layers: int, heads: int) -> Shape:
    return Shape(hidden, ffn, layers, heads, heads, 50_304, 1024, architecture="gpt_neox")


# Table 8 of the ProX paper; its second column of counts is without one embedding matrix.
PUBLISHED = {
    "tlm_xs": (llama(1280, 2048, 24, 16, 1), 354_284_800, 313_324_800),
    "tlm_s": (llama(1536, 4864, 24, 24, 2), 758_982_144, 709_830_144),
    "tlm_m": (llama(2048, 8192, 24, 32, 32), 1_741_785_088, 1_676_249_088),
    "pythia_410m": (pythia(1024, 4096, 24, 16), 405_334_016, 353_822_720),
    "pythia_1b": (pythia(2048, 8192, 16, 8), 1_011_781_632, 908_759_040),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_and_real_model(name: str) -> None:
    shape, total, minus_one = PUBLISHED[name]
    counts = count_parameters(shape)
    assert (counts.total, counts.minus_one_embedding) == (total, minus_one)
    assert counts.non_embedding == total - 2 * shape.vocab_size * shape.hidden_size
    assert parameters_of(build_model(shape, 0, device="meta")) == counts


def test_tied_matrix_counts_once() -> None:
    shape = Shape(tie_word_embeddings=True)
    counts = count_parameters(shape)
    assert counts == parameters_of(build_model(shape, 0))
    untied = count_parameters(Shape())
    assert counts == Parameters(untied.minus_one_embedding, untied.non_embedding, untied.non_embedding)


def test_architecture_settings() -> None:
    config = build_model(Shape(), 0, eos_token_id=0).config
    assert config.rms_norm_eps == 1e-5
    assert config.rope_parameters["rope_theta"] == 10_000
    assert (config.attention_bias, config.mlp_bias, config.eos_token_id) == (False, False, 0)
    assert build_model(Shape(), 0, eos_token_id=0).get_input_embeddings().padding_idx is None  # else never trained
    rotary = build_model(pythia(64, 128, 1, 2), 0).config.rope_parameters
    assert (rotary["rope_theta"], rotary["partial_rotary_factor"]) == (10_000, 0.25)


def test_seed_decides_the_weights() -> None:
    def first_row(seed: int) -> list[float]:
        return build_model(Shape(), seed).get_input_embeddings().weight[0].tolist()

    assert first_row(1) == first_row(1) != first_row(2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"architecture": "mamba"},
        {"hidden_size": 130, "num_attention_heads": 4},
        {"num_key_value_heads": 3},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 0},
        {"vocab_size": -1},
        {"num_hidden_layers": 0},
        {"hidden_size": 130},  # heads of 65
        {"hidden_size": 24, "architecture": "gpt_neox"},  # of each 12, a quarter is turned
    ],
)
def test_impossible_shapes_are_the_users_mistake(wrong: dict[str, int | str]) -> None:
    with pytest.raises(UserError, match="shape\\."):
        count_parameters(wrong)


def test_counting_and_scheduling_import_no_torch() -> None:
    code = (
        "import sys; from prox_hpc.train import flops, schedule, shapes; "
        "shapes.count_parameters({}); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
