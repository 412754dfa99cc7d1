"""The products of a refined block, and how they get their names.

    blocks/NNNNN.programs.parquet   every document's record, in the corpus's order
    blocks/NNNNN.refined.parquet    the documents that stay, made from those programs
    blocks/NNNNN.json               the manifest, last: counts and order-independent digests of both

Programs and refined documents are written side by side while the server works, as a stream of documents in order:
memory does not grow with the block. The programs get their name first. A task that finds them published (by one that
died, or by one that was faster) makes the rest from the published ones, so bytes never depend on who came first.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, cast

from prox_hpc.corpus.read import ROW_GROUP, Block, Document, Source, Stored, one_line
from prox_hpc.corpus.write import write_stored
from prox_hpc.publish import publish_draft, publish_json, temporary
from prox_hpc.refine.counts import Counts, Digest, Executed, add_counters
from prox_hpc.refine.records import (
    OUTCOMES,
    Execution,
    Row,
    Written,
    check_row,
    execute,
    programs_path,
    read_rows,
    row_of,
    schema,
)

_NOTE = "prox_hpc.block"
TOKEN_KINDS = ("doc_prefill", "doc_decode", "chunk_prefill", "chunk_decode")
CACHED = "chunk_cached"
"""Of the tokens of chunk prompts, those that a server had read before; the note of a programs file may hold it."""
SUMMED = ("characters_in", "characters_out", "removed_lines", "replaced")
"""Columns of the programs file whose sums stand in the manifest."""
COUNTERS = ("malformed", "operations", "refused")
"""Counters of the manifest, see `prox_hpc.refine.counts.Counts`."""

_REMADE_FROM = {
    "json": ("json",),
    "refined.parquet": ("refined.parquet", "json"),
    "programs.parquet": ("programs.parquet", "refined.parquet", "json"),
}
"""Which products of a block must go when one of them is damaged, so that all of it is made again."""

_TALLIED = ["outcome", "reason", "doc_score", "doc_cut", "chunks.list.element.status", *SUMMED]
_TALLIED += ["doc_tokens", "chunk_tokens", "output_tokens"]
"""Columns the manifest is made from."""


class Ready(NamedTuple):
    """A document with all that was written for it."""

    document: Document
    written: Written


class Lost(Exception):
    """Another task published the block's programs first."""


def path_of(artifact: Path, block: Block, suffix: str) -> Path:
    """Where a product of a block lies; suffix: `programs.parquet`, `refined.parquet` or `json`."""
    return artifact / "blocks" / f"{block.index:05d}.{suffix}"


def damaged(artifact: Path, block: Block, suffix: str, what: str) -> RuntimeError:
    """The error for a product of a block that is not what was published: its file, `what` is wrong, the remedy."""
    names = [path_of(artifact, block, product) for product in _REMADE_FROM[suffix]]
    gone = [str(path) for path in (*names, artifact / "artifact.json") if path.exists()]
    remedy = f"remove {' '.join(gone)} and launch again" if gone else "launch again"
    return RuntimeError(f"{path_of(artifact, block, suffix)}: {what}; {remedy}")


def manifest_of(artifact: Path, block: Block) -> dict[str, Any]:
    """The manifest of a published block; RuntimeError when the file holds none."""
    try:
        manifest = json.loads(path_of(artifact, block, "json").read_text())
        if {"in", "kept", "dropped", "failed"} <= manifest.keys():
            return cast(dict[str, Any], manifest)
        reason = "it has no counts"
    except (ValueError, AttributeError) as error:
        reason = str(error)
    raise damaged(artifact, block, "json", f"is no manifest ({reason})")


def write_block(
    artifact: Path, block: Block, ready: Iterable[Ready], execution: Execution, note: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Publish the products of a block from its documents in order; returns its manifest.

    note: called when `ready` is exhausted, for what the manifest says beside the documents: failed (records that gave
    no document, by reason), seconds, server_version, parameters ... Lost when another task was first with the
    programs; nothing of this call is left then, nor when `ready` raises.
    """
    tally = _Tally()
    counts = Counts()
    refined = path_of(artifact, block, "refined.parquet")
    write_stored(refined, counts.kept(_recorded(programs_path(artifact, block.index), ready, execution, note, tally)))
    return _finish(artifact, block, tally, counts)


def finish_block(artifact: Path, block: Block, source: Source, execution: Execution) -> dict[str, Any]:
    """Make what a block with published programs lacks, from those programs; returns its manifest."""
    if path_of(artifact, block, "json").exists():
        return manifest_of(artifact, block)
    tally = _Tally()
    counts = Counts()
    published = _published(artifact, block, source, execution, tally)
    write_stored(path_of(artifact, block, "refined.parquet"), counts.kept(published))
    return _finish(artifact, block, tally, counts)


def remade_manifest(
    artifact: Path, block: Block, source: Source, execution: Execution
) -> tuple[dict[str, Any], dict[str, int]]:
    """The manifest that a block's published programs give when they are executed once more, with nothing written.

    The second value counts the documents that come out otherwise than the programs file says, by outcome.
    """
    tally = _Tally()
    counts = Counts()
    for _ in counts.kept(_published(artifact, block, source, execution, tally)):
        pass
    return _manifest(block, tally, counts), counts.counters["changes"]


def _recorded(
    path: Path,
    ready: Iterable[Ready],
    execution: Execution,
    note: Callable[[], dict[str, Any]],
    tally: "_Tally",
) -> Iterator[Executed]:
    """Execute documents as they come, and publish their records when the last one has come."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary(path)
    try:
        with pq.ParquetWriter(draft, schema(), compression="zstd", write_page_checksum=True) as writer:
            group: list[dict[str, Any]] = []
            for document, written in ready:
                stored = Stored.of(document)
                result = execute(document.id, stored.utf8, written, execution)
                record = row_of(document, result, written, execution)
                tally.add(record)
                group.append(record)
                if len(group) == ROW_GROUP:
                    writer.write_table(pa.Table.from_pylist(group, schema()))
                    group = []
                yield Executed(stored, result, record["characters_in"], record["text_hash_in"])
            writer.write_table(pa.Table.from_pylist(group, schema()))
            tally.note = note()
            writer.add_key_value_metadata({_NOTE: json.dumps(tally.note)})
        if not publish_draft(draft, path):
            raise Lost(path)
    finally:
        draft.unlink(missing_ok=True)


def _published(
    artifact: Path, block: Block, source: Source, execution: Execution, tally: "_Tally"
) -> Iterator[Executed]:
    def wrong(what: str) -> RuntimeError:
        return damaged(artifact, block, "programs.parquet", what)

    rows = _records(artifact, block, tally)
    for document, recorded in zip_longest(source.read_stored(block), rows):
        if document is None or recorded is None:
            raise wrong(
                f"has not as many rows as {block.path} has documents; restore the corpus if it changed, or else"
            )
        try:
            hash_in = check_row(recorded, document.id, document.utf8)
        except RuntimeError as error:
            raise wrong(f"{error} (corpus: {block.path}); restore the corpus if it changed, or else") from error
        result = execute(document.id, document.utf8, recorded.written, execution)
        yield Executed(document, result, recorded.characters_in, hash_in, recorded)


def _records(artifact: Path, block: Block, tally: "_Tally") -> Iterator[Row]:
    """The rows of a block's programs file, after all have been tallied; RuntimeError when it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = path_of(artifact, block, "programs.parquet")
    try:
        with pq.ParquetFile(path) as file:
            note = (file.metadata.metadata or {}).get(_NOTE.encode())
            if note is None:
                raise damaged(artifact, block, "programs.parquet", "was not written by a refine task")
            tally.note = json.loads(note)
            for batch in file.iter_batches(batch_size=ROW_GROUP, columns=_TALLIED):
                for record in batch.to_pylist():
                    tally.add(record)
        yield from read_rows(path)
    except (OSError, pa.ArrowException) as error:
        raise damaged(artifact, block, "programs.parquet", f"cannot be read ({one_line(error)})") from error


class _Tally:
    """What the manifest says about the records of a block."""

    def __init__(self) -> None:
        self.note: dict[str, Any] = {}
        self._rows = 0
        self._by: dict[str, Counter[str]] = {name: Counter() for name in ("outcomes", "reasons", "doc", "chunk")}
        self._sums: Counter[str] = Counter()

    def add(self, record: Mapping[str, Any]) -> None:
        self._rows += 1
        self._by["outcomes"][record["outcome"]] += 1
        if record["reason"]:
            self._by["reasons"][record["reason"]] += 1
        self._by["doc"]["ok" if record["doc_score"] is not None else "not_scored"] += 1
        for chunk in record["chunks"]:
            self._by["chunk"][chunk["status"]] += 1
        for name in (*SUMMED, "doc_cut", "doc_tokens", "chunk_tokens", "output_tokens"):
            self._sums[name] += record[name]

    def manifest(self) -> dict[str, Any]:
        outcomes, note = self._by["outcomes"], dict(self.note)
        failures = note.pop("failed")
        failed = sum(failures.values())
        seconds = note["seconds"]
        return {
            "in": self._rows + failed,
            "kept": outcomes["untouched"] + outcomes["edited"],
            "failed": failed,
            **{name: outcomes[name] for name in OUTCOMES},
            "failures": failures,
            "reasons": dict(self._by["reasons"]),
            "doc_cut": self._sums["doc_cut"],
            "programs": {"doc": dict(self._by["doc"]), "chunk": dict(self._by["chunk"])},
            # A score needs no decoding: it is read at the last position of the prompt.
            "tokens": {
                "doc_prefill": self._sums["doc_tokens"],
                "doc_decode": 0,
                "chunk_prefill": self._sums["chunk_tokens"],
                "chunk_decode": self._sums["output_tokens"],
                # older programs do not say
                **({CACHED: note.pop(CACHED)} if CACHED in note else {}),
            },
            **{name: self._sums[name] for name in SUMMED},
            "documents_per_second": self._rows / seconds if seconds else 0.0,
            **note,
        }


def _finish(artifact: Path, block: Block, tally: _Tally, counts: Counts) -> dict[str, Any]:
    publish_json(path_of(artifact, block, "json"), _manifest(block, tally, counts))
    return manifest_of(artifact, block)


def _manifest(block: Block, tally: _Tally, counts: Counts) -> dict[str, Any]:
    return {
        **tally.manifest(),
        **{name: counts.counters[name] for name in COUNTERS},
        "digest_in": str(counts.digest_in),
        "digest_out": str(counts.digest_out),
        "block": block.index,
    }


def checked_manifest(artifact: Path, block: Block) -> dict[str, Any]:
    """The manifest of a block; RuntimeError when documents were lost or doubled, or its files do not fit it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    manifest = manifest_of(artifact, block)
    if manifest["in"] != manifest["kept"] + manifest["dropped"] + manifest["failed"]:
        raise damaged(artifact, block, "json", f"documents were lost or doubled: {manifest}")
    for kind, expected in (("programs", manifest["in"] - manifest["failed"]), ("refined", manifest["kept"])):
        suffix = f"{kind}.parquet"
        try:
            rows = pq.read_metadata(path_of(artifact, block, suffix)).num_rows
        except (OSError, pa.ArrowException) as error:
            raise damaged(artifact, block, suffix, f"cannot be read ({one_line(error)})") from error
        if rows != expected:
            # the manifest may be what is wrong; made again, it tells
            wrong = "refined.parquet" if kind == "refined" else "json"
            what = f"{block.index:05d}.{suffix} has {rows} rows, but its manifest says {expected}"
            raise damaged(artifact, block, wrong, what)
    return manifest


def add_manifests(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums over the manifests of all blocks of a step: its summary."""
    tokens = [manifest["tokens"] for manifest in manifests]
    kinds = (*TOKEN_KINDS, *((CACHED,) if any(CACHED in one for one in tokens) else ()))
    add = {key: sum(manifest[key] for manifest in manifests) for key in ("in", "kept", "failed", *OUTCOMES)}
    return {
        "documents": add,
        "programs": add_counters([manifest["programs"] for manifest in manifests], ("doc", "chunk")),
        **add_counters(manifests, ("reasons", "failures", *COUNTERS)),
        "tokens": {kind: sum(one.get(kind, 0) for one in tokens) for kind in kinds},
        "parameters": manifests[0]["parameters"] if manifests else {},
        "server_version": ", ".join(sorted({manifest["server_version"] for manifest in manifests})),
        **{key: sum(manifest[key] for manifest in manifests) for key in (*SUMMED, "seconds", "doc_cut")},
        "digest_in": Digest.total(manifest["digest_in"] for manifest in manifests),
        "digest_out": Digest.total(manifest["digest_out"] for manifest in manifests),
    }
