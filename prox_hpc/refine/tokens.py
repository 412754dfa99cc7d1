"""A refiner's tokenizer and what its config.json says, read once a task, outside the server.

Prompts are tokenised here, in batches and in the tokenizer's own threads, so that they can be counted and cut exactly
and the server has nothing left to do but run the model.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from prox_hpc.config import Shape
from prox_hpc.errors import UserError
from prox_hpc.refine.byte_level import ByteLevel
from prox_hpc.serve.prompt import tokenizable

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Model:
    """What prompting a model takes: tokenizer, context length in tokens, token that ends an answer, size.

    parameters: see `counted`.
    """

    name: str
    tokenizer: "Tokenizer"
    context: int
    eos_id: int
    parameters: dict[str, int | None]

    def encode(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[list[int]]:
        """Token ids of each text; lone surrogates are read as U+FFFD."""
        safe = [tokenizable(text) for text in texts]
        if self._fast is not None:
            before, after = self._special if add_special_tokens else ([], [])
            return [before + ids + after for ids in self._fast.encode(safe)]
        return [
            encoding.ids for encoding in self.tokenizer.encode_batch_fast(safe, add_special_tokens=add_special_tokens)
        ]

    @cached_property
    def _fast(self) -> ByteLevel | None:
        return ByteLevel.of(self.tokenizer)

    @cached_property
    def _special(self) -> tuple[list[int], list[int]]:
        """The tokens that the tokenizer puts before and after a text."""
        (token,) = self.tokenizer.encode("0", add_special_tokens=False).ids
        ids = self.tokenizer.encode("0", add_special_tokens=True).ids
        return ids[: ids.index(token)], ids[ids.index(token) + 1 :]

    def line_ends(self) -> frozenset[int]:
        """The tokens that end with a line feed, as byte-level (`Ċ`), byte-fallback and plain vocabularies spell it."""
        spelled = [token for name, token in self.tokenizer.get_vocab().items() if name.endswith(("Ċ", "\n", "<0x0A>"))]
        texts = self.tokenizer.decode_batch([[token] for token in spelled], skip_special_tokens=False)
        return frozenset(token for token, text in zip(spelled, texts, strict=True) if text.endswith("\n"))

    def encode_with_offsets(
        self, text: str, add_special_tokens: bool = False
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text, and the character span of each."""
        encoding = self.tokenizer.encode(tokenizable(text), add_special_tokens=add_special_tokens)
        return encoding.ids, list(encoding.offsets)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character span of every token of `text`."""
        return list(self.tokenizer.encode(tokenizable(text), add_special_tokens=False).offsets)


def load(name: str) -> Model:
    """Read tokenizer and configuration of a model folder or hub name; UserError when they cannot be used."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name}: its config or tokenizer cannot be loaded ({cause}); give a complete model") from error
    if not tokenizer.is_fast:
        raise UserError(f"{name}: has only a slow tokenizer; add its tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name}: its tokenizer names no eos_token, so answers would never end; set it")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # a page that says `</s>` must not end its own prompt
    context, eos = config.max_position_embeddings, tokenizer.eos_token_id
    return Model(name, backend, context, eos, counted(config))


def counted(config: Any) -> dict[str, int | None]:
    """What the FLOPs of a model are counted by: its `Parameters`, layers, width of its attention, context in tokens.

    All None where the architecture is not one whose formula we have; then the user gives `refiner.parameters`.
    """
    from prox_hpc.train.shapes import Parameters, count_parameters

    shape = {"layers": "num_hidden_layers", "hidden": "hidden_size", "context": "max_position_embeddings"}
    if config.model_type not in ("llama", "gpt_neox"):
        return dict.fromkeys([*(field.name for field in fields(Parameters)), *shape])
    known = {field.name: getattr(config, field.name) for field in fields(Shape) if hasattr(config, field.name)}
    known.setdefault("num_key_value_heads", known["num_attention_heads"])
    counts = count_parameters(Shape(**{**known, "architecture": config.model_type}))
    return asdict(counts) | {key: getattr(config, name) for key, name in shape.items()}
