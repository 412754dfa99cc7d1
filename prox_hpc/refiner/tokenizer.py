"""Step `tokenizer`: the study's own small tokenizer, made so that a model of a million parameters can write programs.

Byte-level BPE, so every text round-trips. What a refiner has to point at or copy is one token: the line marks
`[000]`..`[299]`, the page tags, the calls of the language, and the numbers 0..299, so that copying a line number is one
step from the mark's embedding to the number's. Digits come in groups of at most three, so a program's number is never
glued to anything; a line break stands alone, so a line reads the same wherever it stands. The trainee uses the same
tokenizer: one vocabulary, one packed corpus.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prox_hpc.errors import UserError
from prox_hpc.publish import publish_directory
from prox_hpc.task import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT: Final = "<|endoftext|>"
"""Id 0: ends a document or an answer, and pads."""
MARKED_LINES: Final = 300
"""Lines with a mark and a number of one token; marks of later lines are spelt in pieces, and still work."""
TAGS: Final = ("<doc>", "</doc>", "<chunk>", "</chunk>")
CALL_TOKENS: Final = ("keep_doc()", "drop_doc()", "keep_chunk()", "remove_lines(", 'normalize("')
FOLDER: Final = "tokenizer"
TRAINING_CHARACTERS: Final = 32_000_000
"""Merges of a small vocabulary settle long before: 32 MB take 5 s, the whole of a large corpus would take hours."""

# What BPE may merge within: a word with its blank, up to three digits, the comma between two numbers, one line break,
# a run of other blanks, a run of punctuation. Case-sensitive: the classes cover every character, so nothing is lost.
_PIECES: Final = r", (?=\p{N})| ?\p{L}+|\p{N}{1,3}|\n|[^\S\n]+(?!\S)|[^\S\n]+| ?[^\s\p{L}\p{N}]+"


def smallest_vocabulary() -> int:
    """Tokens there are before the first merge: end of text, added tokens, bytes, comma, numbers."""
    return 1 + len(TAGS) + len(CALL_TOKENS) + MARKED_LINES + 256 + 1 + (MARKED_LINES - 10)


def train(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """A `tokenizers.Tokenizer` of at most `vocab_size` tokens whose merges come from `texts`.

    Raises UserError when `vocab_size` leaves no room for a single merge.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    least = smallest_vocabulary()
    if vocab_size <= least:
        raise UserError(
            f"refiner.shape.vocab_size={vocab_size}: set it above {least}, the tokens needed before any word"
        )
    fixed = [*TAGS, *CALL_TOKENS, *(f"[{line:03d}]" for line in range(MARKED_LINES))]
    # byte-level BPE writes a blank as U+0120
    whole = [",\u0120", *(str(number) for number in range(10, MARKED_LINES))]
    split = [
        pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(split)  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(fixed) - len(whole),
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    # The trainer knows no way to ask for a token, so the numbers are put into its model: with `ignore_merges` a piece
    # that is in the vocabulary is taken whole, with no merges leading to it.
    model = json.loads(bpe.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for piece in whole:
        vocabulary.setdefault(piece, len(vocabulary))
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = bpe.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([END_OF_TEXT])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in fixed])
    return tokenizer


def save(tokenizer: "Tokenizer", folder: Path) -> None:
    """Write `tokenizer` into `folder` as transformers and SGLang load it (no BOS is put before a text)."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=10**9,  # the model's context is the model's to say
    ).save_pretrained(folder)
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1) + "\n")  # older readers want it


def load(artifact: Path) -> "Tokenizer":
    """The `tokenizers.Tokenizer` of a tokenizer artifact (for whoever needs no transformers)."""
    from tokenizers import Tokenizer

    tokenizer: Tokenizer = Tokenizer.from_file(str(artifact / FOLDER / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # what a page says is text
    return tokenizer


def run(task: Task) -> None:
    """Train the tokenizer on the step's corpus (its first 32 million characters) and publish it."""
    from prox_hpc.corpus.blocks import documents
    from prox_hpc.corpus.read import open_source

    if (task.out / FOLDER).exists():
        return
    texts = (document.text for document in documents(open_source(task)))
    tokenizer = train(_head(texts, TRAINING_CHARACTERS), task.config["vocab_size"])
    publish_directory(task.out / FOLDER, lambda draft: save(tokenizer, draft))


def seal(task: Task) -> dict[str, Any]:
    return {"vocab_size": load(task.out).get_vocab_size()}


def _head(texts: Iterable[str], characters: int) -> Iterator[str]:
    for text in texts:
        if characters <= 0:
            return
        yield text[:characters]
        characters -= len(text)
