"""Byte-level BPE tokenizers (GPT-2, Llama 3, Qwen, ours) run by tiktoken: the same tokens, three to four times as fast.

At 0.3B a GPU reads more tokens a second than two cores make with `tokenizers` (0.8M a core measured), so tokenising is
what a refine task's processors do. Only tokenizers that tiktoken can express exactly are taken over; each is tried on
a probe before it is used. The others (SentencePiece models such as Llama 2's) stay with `tokenizers`.
"""

import json
import os
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tiktoken
    from tokenizers import Tokenizer

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What ByteLevel's own pattern is (GPT-2)."""
_PROBE = "\n".join(
    [
        "[000]Home | About\tus  \r",
        "[001]",
        "[002]  It's 1,234.56 \"words\" -- we'll see: naïve café, Ελλάδα, 中文字符, русский",
        "[1000]\u00a0\u2003wide\u200b blanks\u2028 and \ufeff marks; e\u0301 \x00\x1f",
        "©®™ … – “quoted” \U0001f469\u200d\U0001f467",
        "def f(x): return {'a': [x**2 != -1e-9]}  # <a href=\"http://x.example/?q=1&r=%20\">link</a>",
        "\n\n\n   THE END...\n",
    ]
)


class ByteLevel:
    """`encode(texts)` as the tokenizer would, its added tokens as it takes them; several texts at once, in threads."""

    def __init__(self, encoding: "tiktoken.Encoding", tokenizer: "Tokenizer"):
        self._encoding, self._tokenizer = encoding, tokenizer
        self._composed = tokenizer.normalizer is not None  # which is NFC then
        added = tokenizer.get_added_tokens_decoder().values()
        spelt_out = tokenizer.encode_special_tokens
        self._whole = {token.content for token in added if not (token.special and spelt_out)}
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "tokens")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return list(self._threads.map(self._one, texts))

    def _one(self, text: str) -> list[int]:
        if self._composed:
            text = unicodedata.normalize("NFC", text)
        try:
            return self._encoding.encode(text, allowed_special=self._whole, disallowed_special=())
        except ValueError:  # a run of some 100,000 blanks is too much for its regular expressions
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
            return ids

    @staticmethod
    def of(tokenizer: "Tokenizer") -> "ByteLevel | None":
        """None when tiktoken cannot stand in for this tokenizer."""
        description = json.loads(tokenizer.to_str())
        pattern = _pattern(description)
        ranks = _ranks(description)
        added = {token["content"]: token["id"] for token in description["added_tokens"]}
        plain = not any(
            token[flag] for token in description["added_tokens"] for flag in ("single_word", "lstrip", "rstrip")
        )
        if pattern is None or ranks is None or not plain:
            return None
        import tiktoken

        encoding = tiktoken.Encoding("refiner", pat_str=pattern, mergeable_ranks=ranks, special_tokens=added)
        fast = ByteLevel(encoding, tokenizer)
        probe = _PROBE + "".join(added)
        return fast if fast.encode([probe]) == [tokenizer.encode(probe, add_special_tokens=False).ids] else None


def _pattern(description: dict[str, Any]) -> str | None:
    """The regular expression that splits a text into pieces; None where there is more to it."""
    if description["normalizer"] not in (None, {"type": "NFC"}):
        return None
    first = description["pre_tokenizer"] or {}
    steps = first["pretokenizers"] if first.get("type") == "Sequence" else [first]
    if steps[-1].get("type") != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    if len(steps) == 1:
        return _GPT2 if steps[0]["use_regex"] else None
    split = steps[0]
    isolated = split.get("type") == "Split" and split["behavior"] == "Isolated" and not split["invert"]
    alone = len(steps) == 2 and not steps[1]["use_regex"]
    return split["pattern"].get("Regex") if isolated and alone else None


def _ranks(description: dict[str, Any]) -> dict[bytes, int] | None:
    """Byte sequence -> id of the vocabulary, where ids rise in the order of the merges, as tiktoken takes them."""
    model = description["model"]
    if model["type"] != "BPE" or any(
        model.get(key) for key in ("dropout", "byte_fallback", "continuing_subword_prefix")
    ):
        return None
    vocabulary = model["vocab"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    merged = [vocabulary["".join(pair)] for pair in pairs]
    byte_of = {character: byte for byte, character in _alphabet().items()}
    added = {token["content"] for token in description["added_tokens"]}
    spelled = {name: token for name, token in vocabulary.items() if name not in added}
    # What no merge makes would be merged by tiktoken all the same; what several make, it merges in any of these ways.
    if merged != sorted(merged) or len({*merged}) != len(spelled) - 256 or not byte_of.keys() <= spelled.keys():
        return None
    return {bytes(byte_of[character] for character in name): token for name, token in spelled.items()}


def _alphabet() -> dict[int, str]:
    """Byte -> the character that byte-level vocabularies spell it by (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
