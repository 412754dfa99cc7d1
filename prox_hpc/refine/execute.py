"""Step `execute`: an arm's corpus from documents and programs, on a CPU.

`refined` executes the recorded programs of a refine step under the arm's own settings, `gold` the corpus's true
programs and verdicts (the ceiling). Two keep as many documents as another arm did: `random` chooses them by lot,
`classifier` by the scores of a classify step. What comes out is an ordinary corpus.
"""

import gc
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from prox_hpc.corpus.blocks import check_read_before, fails_alone, sound_blocks
from prox_hpc.corpus.classify import read_scores
from prox_hpc.corpus.read import Block, Document, Source, Stored, open_source, task_blocks
from prox_hpc.corpus.write import block_path, is_done, publish_counts, read_counts, write_stored
from prox_hpc.errors import UserError
from prox_hpc.programs import Caps, ChunkProgram, DocumentChecks, refine_document
from prox_hpc.programs.execute import character_count
from prox_hpc.programs.record import text_hash
from prox_hpc.refine.counts import COUNTERS, Counts, Digest, Executed, add_counters
from prox_hpc.refine.pilot import threshold_of
from prox_hpc.refine.records import (
    Execution,
    check_row,
    execute,
    is_blank,
    programs_path,
    read_rows,
)
from prox_hpc.task import Task

# Gold programs are ours, one for a whole document of any length: the caps on model output do not concern them.
_GOLD_CAPS = Caps(program_bytes=sys.maxsize, operations=sys.maxsize)


Arm = Callable[[Source, Block], Iterator[Executed]]
"""The documents of a block, in order, each with what becomes of it."""


def run(task: Task) -> None:
    """Publish the arm's documents of this task's blocks; blocks already published are left alone."""
    source = open_source(task)
    blocks = task_blocks(source.blocks, task)
    arm, tokens = _arm(task), _tokens(task)
    for done, block in enumerate(blocks):
        task.progress(done, len(blocks), "blocks")
        if is_done(task.out, block.index):
            continue
        failed_before = source.failed.total()
        counts = Counts()
        with fails_alone(task, block):
            with closing(arm(source, block)) as executed, _without_cycles():  # type: ignore[type-var]
                written = write_stored(block_path(task.out, block.index), counts.kept(executed))
            told = counts.to_json(written, source.failed.total() - failed_before)
            publish_counts(task.out, block.index, {**told, "tokens": tokens(block)})
    task.progress(len(blocks), len(blocks), "blocks")


@contextmanager
def _without_cycles() -> Iterator[None]:
    """No search for reference cycles: documents, rows and outcomes hold none, and it takes 5 % of a replay's time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def seal(task: Task) -> dict[str, Any]:
    """Check every block; returns documents_in, documents_out, characters_in, characters_out, digests and counters.

    tokens: those of the programs that this arm needs, see `needed_tokens`; {} for an arm without programs.
    RuntimeError when a block is missing, too many could not be read, or documents were lost or doubled.
    """
    sound, failed = sound_blocks(task.out, open_source(task))
    counts = read_counts(task.out, [block.index for block in sound])
    for block in counts:
        gone = block["outcomes"]["dropped"] + block["outcomes"]["failed"]
        if block["documents_in"] != block["documents"] + gone:
            raise RuntimeError(f"{task.out}: documents were lost or doubled: {block}")
    # revision 3 counted no tokens; its products can still be verified
    tokens = ("tokens",) if all("tokens" in block for block in counts) else ()
    return {
        "failed_blocks": len(failed),
        "documents_in": sum(block["documents_in"] for block in counts),
        "documents_out": sum(block["documents"] for block in counts),
        "characters_in": sum(block["characters_in"] for block in counts),
        "characters_out": sum(block["characters"] for block in counts),
        **add_counters(counts, (*COUNTERS, *tokens)),
        "digest_in": Digest.total(block["digest_in"] for block in counts),
        "digest_out": Digest.total(block["digest_out"] for block in counts),
    }


def _arm(task: Task) -> Arm:
    settings = task.config["arm"]
    checks = DocumentChecks(**settings.get("checks", {}))
    if settings["kind"] == "refined":
        return _refined(task.input("programs"), _execution(task))
    if settings["kind"] == "gold":
        return lambda source, block: (_gold(document, checks) for document in source.read(block))
    if settings["kind"] == "random":
        summary = json.loads((task.input("like") / "artifact.json").read_text())["summary"]
        share = summary["documents_out"] / summary["documents_in"] if summary["documents_in"] else 1.0
        return _random(share, settings.get("seed", 0))
    if settings["kind"] == "classifier":
        summary = json.loads((task.input("scores") / "artifact.json").read_text())["summary"]
        return _classified(task.input("scores"), summary["threshold"])
    raise UserError(f"arm.kind={settings['kind']}: is not made here; one of refined, gold, random, classifier")


def _execution(task: Task) -> Execution:
    """How a `refined` arm executes the programs."""
    settings = task.config["arm"]
    return Execution(
        doc=settings.get("doc", True),
        chunk=settings.get("chunk", True),
        profile=settings.get("profile", "v1"),
        threshold=threshold_of(task.config, task.optional_input("pilot")),
        checks=DocumentChecks(**settings.get("checks", {})),
        caps=Caps(**settings.get("caps", {})),
        quarantine=settings.get("quarantine", "unrefined"),
    )


def _tokens(task: Task) -> Callable[[Block], dict[str, int]]:
    """`needed_tokens` of a block, for this arm."""
    if task.config["arm"]["kind"] != "refined":
        return lambda block: {}
    programs, execution = task.input("programs"), _execution(task)
    refined = json.loads((programs / "artifact.json").read_text()).get("config", {})
    margin = refined.get("refiner", {}).get("chunk_margin", 0.0)
    return lambda block: needed_tokens(programs_path(programs, block.index), execution, margin)


def needed_tokens(path: Path, execution: Execution, margin: float) -> dict[str, int]:
    """{doc_prefill, chunk_prefill, chunk_decode}: the tokens of a programs file that one arm needs.

    That is what the refine step would have asked for this arm alone: scores of every document if the arm has the doc
    stage, and programs of those that reach its threshold less `margin` (`Settings.wants_chunks`). Beside an arm
    without the doc stage all documents are programmed, and only that arm needs all of it.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        columns = file.read(columns=["doc_score", "doc_tokens", "chunk_tokens", "output_tokens"])
    doc, chunk, decode = (columns[name].to_numpy() for name in ("doc_tokens", "chunk_tokens", "output_tokens"))
    # no score is NaN here, which is below nothing: without a score a document is programmed
    passed_over = columns["doc_score"].to_numpy() < execution.threshold - margin
    asked = ~(passed_over & execution.doc) & execution.chunk
    return {
        "doc_prefill": int(doc.sum()) if execution.doc else 0,
        "chunk_prefill": int(chunk[asked].sum()),
        "chunk_decode": int(decode[asked].sum()),
    }


def _refined(programs: Path, execution: Execution) -> Arm:
    def arm(source: Source, block: Block) -> Iterator[Executed]:
        check_read_before(programs, block)
        path = programs_path(programs, block.index)
        for document, row in zip_longest(source.read_stored(block), read_rows(path)):
            if document is None or row is None:
                raise RuntimeError(
                    f"{path}: has not as many rows as {block.path} has documents; it is another corpus's"
                )
            hash_in = check_row(row, document.id, document.utf8)
            result = execute(document.id, document.utf8, row.written, execution)
            yield Executed(document, result, row.characters_in, hash_in, row)

    return arm


def _gold(document: Document, checks: DocumentChecks) -> Executed:
    """The true verdict and program; where a document has neither it stays as it is."""
    stored = Stored.of(document)
    if is_blank(document.text) and not document.gold_drop:
        result = refine_document(stored.utf8, [])
    else:
        whole = ChunkProgram(0, document.text.count("\n") + 1, document.gold_program)
        dropped = bool(document.gold_drop)
        result = refine_document(stored.utf8, [whole], drop=dropped, checks=checks, caps=_GOLD_CAPS)
    return Executed(stored, result, len(document.text), text_hash(stored.utf8))


def _random(share: float, seed: int) -> Arm:
    """Of each block's n documents, the n * share with the lowest lot (rounded up or down by lot)."""

    def arm(source: Source, block: Block) -> Iterator[Executed]:
        documents = list(source.read_stored(block))
        lots = [_lot(seed, block.index, number) for number in range(len(documents))]
        keep = int(len(lots) * share + _lot(seed, block.index, -1))
        chosen = set(sorted(range(len(lots)), key=lots.__getitem__)[:keep])
        for number, document in enumerate(documents):
            yield _chosen(document, number in chosen, "not drawn")

    return arm


def _classified(scores: Path, threshold: float) -> Arm:
    """The documents whose score reaches the threshold."""

    def arm(source: Source, block: Block) -> Iterator[Executed]:
        check_read_before(scores, block)
        for document, scored in zip_longest(source.read_stored(block), read_scores(scores, block)):
            if document is None or scored is None or scored[0] != document.id:
                raise RuntimeError(
                    f"{block_path(scores, block.index)}: its scores are not of the documents of {block.path}; "
                    f"they are another corpus's"
                )
            yield _chosen(document, scored[1] >= threshold, "low score")

    return arm


def _chosen(document: Stored, kept: bool, otherwise: str) -> Executed:
    """The document as it is, or dropped with the reason `otherwise`."""
    result = refine_document(document.utf8, [], drop=not kept)
    told = result if kept else result._replace(reason=otherwise)
    return Executed(document, told, character_count(document.utf8), text_hash(document.utf8))


def _lot(*key: int) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
