"""Step `tokenize`: an arm's documents as packed token ids, one file per block of the corpus.

A block's tokens lie end to end, each document followed by EOS, with no BOS (as ProX packs them), so a trainee's rows
are cut anywhere. What a page says never becomes a special token: EOS stands where a document ends and nowhere else. Ids
are little-endian uint16 when the vocabulary fits, else uint32. Beside `NNNNN.bin` stand `NNNNN.idx`, where each
document begins (little-endian int64 offsets in tokens), and `NNNNN.json` with the counts, published last: a block with
a manifest is done.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prox_hpc.corpus.blocks import fails_alone, sound_blocks
from prox_hpc.corpus.read import Block, Document, Source, open_source, task_blocks
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_file, publish_json
from prox_hpc.task import Task
from prox_hpc.train.data import OFFSETS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DOCUMENTS_AT_ONCE = 256
SUMMED = ("documents", "empty", "failed", "tokens", "utf8_bytes")


def run(task: Task) -> None:
    """Tokenise this task's blocks."""
    source = open_source(task)
    tokenizer = load_tokenizer(task)
    blocks = task_blocks(source.blocks, task)
    for done, block in enumerate(blocks):
        if not (task.out / "blocks" / f"{block.index:05d}.json").exists():
            with fails_alone(task, block):
                _tokenize_block(task, source, block, tokenizer)
        task.progress(done + 1, len(blocks), "blocks")


def seal(task: Task) -> dict[str, Any]:
    """Sums over all blocks; raises when one is missing, has not the size its manifest says, or too many failed."""
    totals = dict.fromkeys(SUMMED, 0)
    about: dict[str, Any] = {}
    blocks, failed = sound_blocks(task.out, open_source(task))
    for block in blocks:
        path = task.out / "blocks" / f"{block.index:05d}.bin"
        manifest = path.with_suffix(".json")
        if not manifest.exists():
            raise FileNotFoundError(f"{manifest}: block {block.index} of {block.path} was not tokenised; launch again")
        before, about = about, json.loads(manifest.read_text())
        if before and any(before[key] != about[key] for key in ("dtype", "vocab_size")):
            raise ValueError(
                f"{manifest}: made with {about['vocab_size']} tokens, one before with {before['vocab_size']}: the "
                f"tokenizer changed in between; delete {task.out}, launch again"
            )
        _check_block(path, about)
        for key in SUMMED:
            totals[key] += about[key]
    if not totals["tokens"]:
        raise UserError(
            f"{task.out}: this corpus has no text left to train on; loosen the arm's rules or enlarge the corpus"
        )
    return {
        "blocks": len(blocks),
        "failed_blocks": len(failed),
        **totals,
        "dtype": about["dtype"],
        "vocab_size": about["vocab_size"],
    }


def _check_block(path: Path, about: dict[str, Any]) -> None:
    """ValueError unless a block's tokens and its index of documents are what its manifest says."""
    index = path.with_suffix(".idx")
    for file, count, dtype in ((path, about["tokens"], about["dtype"]), (index, about["documents"], OFFSETS)):
        size, expected = file.stat().st_size if file.exists() else 0, count * np.dtype(dtype).itemsize
        if size != expected:
            raise ValueError(
                f"{file}: {size} bytes, the block's manifest says {expected}; delete the three files of that block, "
                "launch again"
            )
    starts = np.fromfile(index, dtype=OFFSETS)
    # each document has its EOS at least, and the first begins the block
    if len(starts) and (starts[0] != 0 or (np.diff(starts) < 1).any() or starts[-1] >= about["tokens"]):
        raise ValueError(
            f"{index}: its offsets are not ascending from 0 to below {about['tokens']} tokens; delete the three files "
            "of that block, launch again"
        )


def load_tokenizer(task: Task) -> "PreTrainedTokenizerBase":
    """The study's own tokenizer (input `tokenizer`), or the one that the configuration names; UserError if unusable."""
    from transformers import AutoTokenizer

    own = "tokenizer" in task.step.inputs
    name = (
        str(task.input("tokenizer") / "tokenizer") if own else task.config.get("tokenizer") or task.config.get("model")
    )
    if not name:
        raise UserError("trainee.tokenizer: no tokenizer; set it to a folder or a hub name")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise UserError(f"trainee.tokenizer={name}: cannot be loaded: {first_line}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"trainee.tokenizer={name}: has no EOS token, which must stand between documents")
    return tokenizer


def token_dtype(vocab_size: int) -> str:
    """Numpy name of the smallest of the two id types that holds every id below `vocab_size`."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def _tokenize_block(task: Task, source: Source, block: Block, tokenizer: "PreTrainedTokenizerBase") -> None:
    path = task.out / "blocks" / f"{block.index:05d}.bin"
    dtype = token_dtype(len(tokenizer))
    counts = dict.fromkeys(SUMMED, 0)
    starts: list[int] = []
    failed_before = source.failed.total()

    def write(draft: Path) -> None:
        with draft.open("wb") as file:
            for documents in _batches(source.read(block)):
                texts = [document.text for document in documents if document.text]
                counts["documents"] += len(texts)
                counts["empty"] += len(documents) - len(texts)
                for text, ids in zip(texts, _encode(tokenizer, texts), strict=True):
                    starts.append(counts["tokens"])
                    counts["tokens"] += len(ids) + 1
                    counts["utf8_bytes"] += len(text.encode())
                    file.write(np.array([*ids, tokenizer.eos_token_id], dtype=dtype).tobytes())

    # False when a task that died before its manifest was first; the same documents gave it the same bytes
    publish_file(path, write)
    publish_file(path.with_suffix(".idx"), lambda draft: draft.write_bytes(np.array(starts, dtype=OFFSETS).tobytes()))
    counts["failed"] = source.failed.total() - failed_before
    about = {"dtype": dtype, "vocab_size": len(tokenizer), "source": block.path}
    manifest = {**counts, "failures": source.failures, **about}
    publish_json(path.with_suffix(".json"), manifest)


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    while batch := list(islice(documents, DOCUMENTS_AT_ONCE)):
        yield batch


def _encode(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[list[int]]:
    """Token ids of each text. A special token's name in a page (`<|endoftext|>`, `</s>`) is text like any other.

    Tokens added without `special` (the tags of our own tokenizer) are taken as they are. A Unigram vocabulary (XGLM's)
    lists its special tokens among its pieces and offers no way around them.
    """
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
    )["input_ids"]
    return ids
