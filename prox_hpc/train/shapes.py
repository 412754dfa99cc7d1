"""Model shapes: parameter counts by formula, and the transformers models built from them.

The counts are needed where a study is planned and where it is reported, so they are arithmetic and import no torch; a
test holds them against the real models. Biases, norms and rotary settings are those of the ProX trainees (Llama-2
style: RMSNorm eps 1e-5, rotary base 10,000, no biases) and of Pythia (GPT-NeoX: biases, parallel residual).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prox_hpc.config import Shape
from prox_hpc.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NORM_EPS = 1e-5
ROPE_THETA = 10_000.0
_ROTATED = {"llama": 1.0, "gpt_neox": 0.25}
"""Share of a head's dimensions that rotary positions turn, two by two."""


@dataclass(frozen=True)
class Parameters:
    """Parameter counts of a model.

    total: all, a tied matrix once. non_embedding: without the token embedding and without the LM head (Kaplan et al.
    2020, section 2.1). minus_one_embedding: without one embedding matrix; the LM head of an untied model stays, as in
    the counts by which ProX charges FLOPs (0.313B for TLM-XS).
    """

    total: int
    non_embedding: int
    minus_one_embedding: int


def as_shape(shape: Shape | Mapping[str, Any]) -> Shape:
    """A checked `Shape` from a step's plain configuration; UserError when no model can have it."""
    shape = shape if isinstance(shape, Shape) else Shape(**shape)
    if shape.architecture not in _ROTATED:
        raise UserError(f"shape.architecture={shape.architecture}: unknown; one of llama, gpt_neox")
    for key, value in asdict(shape).items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise UserError(f"shape.{key}={value}: must be 1 or more")
    if shape.hidden_size % shape.num_attention_heads:
        raise UserError(
            f"shape.hidden_size={shape.hidden_size} is no multiple of num_attention_heads={shape.num_attention_heads}"
        )
    if shape.num_attention_heads % shape.num_key_value_heads:
        raise UserError(
            f"shape.num_attention_heads={shape.num_attention_heads} is no multiple of "
            f"num_key_value_heads={shape.num_key_value_heads}"
        )
    head = shape.hidden_size // shape.num_attention_heads
    rotated = int(head * _ROTATED[shape.architecture])
    if rotated < 2 or rotated % 2:
        raise UserError(
            f"shape.hidden_size={shape.hidden_size} and num_attention_heads={shape.num_attention_heads} make heads of "
            f"{head}, of which rotary positions turn {rotated}: it must be an even number, e.g. with heads of 64"
        )
    return shape


def count_parameters(shape: Shape | Mapping[str, Any]) -> Parameters:
    """Parameter counts of a shape, without building it."""
    shape = as_shape(shape)
    hidden, ffn = shape.hidden_size, shape.intermediate_size
    if shape.architecture == "llama":
        kv = shape.num_key_value_heads * (hidden // shape.num_attention_heads)
        layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * ffn + 2 * hidden
        final_norm = hidden
    else:  # every matrix and every norm has a bias
        layer = 4 * hidden * hidden + 4 * hidden + 2 * hidden * ffn + ffn + hidden + 4 * hidden
        final_norm = 2 * hidden
    body = shape.num_hidden_layers * layer + final_norm
    matrix = shape.vocab_size * hidden
    rest = body if shape.tie_word_embeddings else body + matrix
    return Parameters(total=rest + matrix, non_embedding=body, minus_one_embedding=rest)


def build_config(shape: Shape | Mapping[str, Any], *, eos_token_id: int | None = None) -> Any:
    """The transformers configuration of a shape, BOS being the EOS token.

    No padding token is named: transformers would freeze its embedding, and in these tokenizers it is the EOS token.
    """
    from transformers import GPTNeoXConfig, LlamaConfig

    shape = as_shape(shape)
    common: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "max_position_embeddings": shape.max_position_embeddings,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "bos_token_id": eos_token_id,
        "eos_token_id": eos_token_id,
    }
    if shape.architecture == "gpt_neox":  # Pythia rotates a quarter of each head
        share = _ROTATED["gpt_neox"]
        rope = {"rope_type": "default", "rope_theta": ROPE_THETA, "partial_rotary_factor": share}
        return GPTNeoXConfig(**common, layer_norm_eps=NORM_EPS, rope_parameters=rope)
    return LlamaConfig(
        **common,
        num_key_value_heads=shape.num_key_value_heads,
        rms_norm_eps=NORM_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        attention_bias=False,
        mlp_bias=False,
    )


def build_model(
    shape: Shape | Mapping[str, Any], seed: int, *, eos_token_id: int | None = None, device: str = "cpu"
) -> "PreTrainedModel":
    """A freshly initialised model in float32, the same for the same seed; device "meta" allocates nothing."""
    import torch
    from transformers import AutoModelForCausalLM

    config = build_config(shape, eos_token_id=eos_token_id)
    torch.manual_seed(seed)
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return model


def load_model(name: str) -> "PreTrainedModel":
    """An existing model (folder or hub name) in float32, to be trained further; safetensors only, no remote code."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            name, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        kind = "folder" if Path(name).exists() else "hub name or folder"
        first_line = str(error).strip().split("\n")[0]
        raise UserError(f"model={name}: this {kind} gives no causal language model: {first_line}") from error
    return model


def parameters_of(model: "PreTrainedModel") -> Parameters:
    """The counts of a real model, whatever its architecture."""
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding: torch.nn.Parameter = model.get_input_embeddings().weight  # type: ignore[assignment]
    head = model.get_output_embeddings()
    untied = head is not None and head.weight is not embedding
    without = total - embedding.numel()
    return Parameters(
        total=total,
        non_embedding=without - (head.weight.numel() if untied else 0),
        minus_one_embedding=without,
    )
