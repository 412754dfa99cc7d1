"""tiktoken in the place of a tokenizer: the same tokens, or not used at all."""

import random

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from prox_hpc.refine.byte_level import ByteLevel

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = [
    "the",
    "quick",
    "Brown",
    "fox's",
    "über",
    "中文",
    "naïve",
    "12",
    "345",
    "--",
    "...",
    "\u2028",
    "<b>",
    "e\u0301",
]
WORDS += ["\U0001f600", "http://x.example/?a=1"]


def pages(count: int) -> list[str]:
    draw = random.Random(0)
    blanks = (" ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0")
    return ["".join(draw.choice(WORDS) + draw.choice(blanks) for _ in range(200)) for _ in range(count)]


def trained(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(pages(50), trainer)
    tokenizer.add_tokens([AddedToken("<chunk>", normalized=False)])
    return tokenizer


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_only])


@pytest.mark.parametrize("special_is_text", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "llama3", "nfc"])
def test_tokens_are_the_tokenizers(kind: str, special_is_text: bool) -> None:
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = trained(split(LLAMA3) if kind == "llama3" else gpt2)
    if kind == "nfc":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.encode_special_tokens = special_is_text
    fast = ByteLevel.of(tokenizer)
    assert fast is not None
    texts = [*pages(300), "", "<chunk>\n[000]a</chunk> <|end|>", " " * 1_000_000, "x" * 100_000, "e\u0301" * 99]
    expected = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert fast.encode(texts) == expected
    assert (tokenizer.token_to_id("<|end|>") in fast.encode(["<|end|>"])[0]) != special_is_text


def test_tokenizers_of_other_kinds_are_left_alone() -> None:
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    prefixed = pre_tokenizers.ByteLevel(add_prefix_space=True)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    assert ByteLevel.of(trained(prefixed)) is None
    assert ByteLevel.of(trained(digits)) is None
    lowered = trained(plain)
    lowered.normalizer = normalizers.Lowercase()
    assert ByteLevel.of(lowered) is None
    stripping = trained(plain)
    stripping.add_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    assert ByteLevel.of(stripping) is None
    assert ByteLevel.of(Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0))) is None


def test_a_vocabulary_with_words_that_no_merge_makes_is_left_alone() -> None:
    """tiktoken would merge their parts wherever they stand."""
    import json

    description = json.loads(trained(pre_tokenizers.ByteLevel(add_prefix_space=False)).to_str())
    description["model"]["vocab"]["zzzz"] = 2000
    assert ByteLevel.of(Tokenizer.from_str(json.dumps(description))) is None
