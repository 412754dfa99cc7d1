"""Step `refine`: every document gets its programs from a refiner served here, and the refined corpus is published.

A task starts one server (two if doc and chunk stage have different models) and takes its blocks one after the other;
within a block, documents go through both stages independently, so the server always has a full batch. Per block it
publishes the programs first, then the refined documents made from the *published* programs, then the manifest: a task
that died in between goes on from its programs, and bytes never depend on which of two tasks came first. Memory is
bounded by one block.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prox_hpc.config import Refiner, Serve
from prox_hpc.corpus.read import Block, Document, Source, Stored, open_source, task_blocks
from prox_hpc.corpus.write import write_stored
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_file, publish_json
from prox_hpc.refine import tokens
from prox_hpc.refine.chunk import ChunkStage
from prox_hpc.refine.counts import Counts, Digest, Executed, add_counters
from prox_hpc.refine.doc import DocPrompt, DocStage
from prox_hpc.refine.records import (
    OUTCOMES,
    Execution,
    Written,
    check_row,
    execute,
    is_blank,
    read_rows,
    row,
    schema,
)
from prox_hpc.serve.client import Client
from prox_hpc.serve.server import Server, check_model, check_serve
from prox_hpc.task import Task

TOKEN_KINDS = ("doc_prefill", "doc_decode", "chunk_prefill", "chunk_decode")
TOKENISED_TOGETHER = 64
"""Documents whose doc prompts are tokenised in one call."""
_NOTE = b"prox_hpc.block"
_SUMMED = ("characters_in", "characters_out", "removed_lines", "replaced")
"""Columns of the programs file whose sums stand in the manifest."""
_COUNTED = ["outcome", "reason", "doc_score", "doc_cut", "chunks.list.element.status", *_SUMMED]
_COUNTED += ["doc_tokens", "chunk_tokens", "output_tokens"]
"""Columns the manifest is made from."""
_COUNTERS = ("malformed", "operations", "refused")
"""Counters of the manifest, see `prox_hpc.refine.counts.Counts`."""

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """The step's configuration.

    program_all: chunk programs for every document, whatever its score. execution: how its refined documents are made.
    """

    refiner: Refiner
    serve: Serve
    doc_stage: bool
    chunk_stage: bool
    program_all: bool
    execution: Execution

    @staticmethod
    def of(task: Task) -> "Settings":
        """UserError for a configuration that cannot be served."""
        config = task.config
        refiner = Refiner(**{"name": task.step.name, **config["refiner"]})
        if "refiner" in task.step.inputs:
            refiner.doc_model = refiner.chunk_model = str(task.input("refiner") / "model")
        if not (config["doc_stage"] or config["chunk_stage"]):
            raise UserError("refine: neither the doc stage nor the chunk stage is on; some arm must use one")
        serve = Serve(**task.step.runtime.get("serve", {}))
        stages = config["doc_stage"], config["chunk_stage"]
        return Settings(refiner, serve, *stages, config.get("program_all", False), Execution.of(config))

    @property
    def models(self) -> dict[str, str]:
        """Stage -> model, of the stages that are on."""
        found: dict[str, str] = {}
        for stage, on, model in (
            ("doc", self.doc_stage, self.refiner.doc_model),
            ("chunk", self.chunk_stage, self.refiner.chunk_model),
        ):
            if on and model is None:
                raise UserError(
                    f"refiner.{stage}_model: is not set, and the step has no refiner made here as its input"
                )
            if on and model is not None:
                found[stage] = model
        return found

    def wants_chunks(self, score: float | None) -> bool:
        """Whether a document with this doc score (None: there is no doc stage) is programmed."""
        if not self.chunk_stage:
            return False
        return self.program_all or score is None or score >= self.refiner.doc_threshold - self.refiner.chunk_margin


@dataclass
class Refinery:
    """The stages with their running servers' clients."""

    settings: Settings
    doc: DocStage | None
    chunk: ChunkStage | None
    clients: dict[str, Client]
    server_version: str
    parameters: dict[str, dict[str, int | None]]

    async def write(self, document: Document, prompt: DocPrompt | None) -> Written:
        """All programs of one document. prompt: of the doc stage, None if that is off or the document is blank."""
        written = Written()
        if is_blank(document.text):
            return written
        if self.doc is not None and prompt is not None:
            written.doc_score = await self.doc.score(self.clients["doc"], prompt)
            written.doc_cut, written.doc_tokens = prompt.cut, len(prompt.ids)
        if self.chunk is not None and self.settings.wants_chunks(written.doc_score):
            asked = await asyncio.to_thread(self.chunk.prompts, document.text)
            client = self.clients["chunk"]
            answers = await asyncio.gather(*(self.chunk.program(client, one) for one in asked))
            written.chunks = [answer.program for answer in answers]
            written.chunk_tokens = sum(answer.prefill for answer in answers)
            written.program_tokens = sum(answer.decode for answer in answers)
        return written

    async def prompted(self, documents: Sequence[Document]) -> AsyncIterator[tuple[int, Document, DocPrompt | None]]:
        """Documents with their number and doc prompt, tokenised ahead, some at a time, while the server works."""
        for start in range(0, len(documents), TOKENISED_TOGETHER):
            group = documents[start : start + TOKENISED_TOGETHER]
            asked = [document.text for document in group if self.doc is not None and not is_blank(document.text)]
            prompts = iter(await asyncio.to_thread(self.doc.prompts, asked) if self.doc is not None else [])
            for number, document in enumerate(group, start):
                none = self.doc is None or is_blank(document.text)
                yield number, document, None if none else next(prompts)


@dataclass
class _Progress:
    """Documents done by this task, for its status file; rates count only what was computed now."""

    task: Task
    blocks: int
    done: int = 0
    computed: int = 0
    block_total: int = 0
    started: float = field(default_factory=time.monotonic)

    def tell(self) -> None:
        # Blocks not yet read are taken to be as large as the present one.
        total = max(self.done, self.block_total * self.blocks)
        figures = {}
        if self.computed:
            rate = self.computed / max(time.monotonic() - self.started, 1e-9)
            figures["documents_per_second"] = round(rate, 2)
        self.task.progress(self.done, total, "documents", **figures)


def run(task: Task) -> None:
    """Refine this task's blocks; those already published are left alone."""
    settings = Settings.of(task)
    source = open_source(task)
    blocks = task_blocks(source.blocks, task)
    progress = _Progress(task, len(blocks))
    unwritten = []
    for block in blocks:
        if not _path(task, block, "programs.parquet").exists():
            unwritten.append(block)
            continue
        _finish(task, settings, source, block)
        progress.done += _manifest(task, block)["in"]
    if unwritten:
        _serve_and_write(task, settings, source, unwritten, progress)
    progress.block_total = 0
    progress.tell()


def _serve_and_write(task: Task, settings: Settings, source: Source, blocks: list[Block], progress: _Progress) -> None:
    """Start the servers and refine `blocks` that have no programs yet."""
    models = settings.models
    check_serve(settings.serve)
    for name in set(models.values()):
        check_model(name)
    loaded = {name: tokens.load(name) for name in set(models.values())}
    doc, chunk = _stages(settings, {stage: loaded[name] for stage, name in models.items()})
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name in dict.fromkeys(models.values()):
            log = task.state / "servers" / f"{task.index:05d}-{len(servers)}.log"
            servers[name] = stack.enter_context(Server(name, settings.serve, log))
        refinery = Refinery(
            settings,
            doc,
            chunk,
            {},
            next(iter(servers.values())).version(),
            {stage: loaded[name].parameters for stage, name in models.items()},
        )
        asyncio.run(_refine_blocks(task, refinery, servers, source, blocks, progress))


def _stages(settings: Settings, models: dict[str, tokens.Model]) -> tuple[DocStage | None, ChunkStage | None]:
    refiner = settings.refiner
    doc = chunk = None
    if "doc" in models:
        room = _room(models["doc"], settings.serve, 1)
        doc = DocStage.of(models["doc"], refiner.prompt, refiner.max_doc_tokens, room, refiner.doc_answers)
    if "chunk" in models:
        room = _room(models["chunk"], settings.serve, refiner.max_new_tokens)
        chunk = ChunkStage.of(
            models["chunk"], refiner.prompt, refiner.max_chunk_tokens, refiner.max_new_tokens, room, refiner.constrained
        )
    return doc, chunk


def _room(model: tokens.Model, serve: Serve, new_tokens: int) -> int:
    """The longest prompt that SGLang accepts with `new_tokens` to follow; it keeps 6 tokens for itself."""
    return min(model.context, serve.max_total_tokens or model.context) - 6 - new_tokens


async def _refine_blocks(
    task: Task,
    refinery: Refinery,
    servers: dict[str, Server],
    source: Source,
    blocks: list[Block],
    progress: _Progress,
) -> None:
    async with AsyncExitStack() as stack:
        by_model = {name: await stack.enter_async_context(Client(server)) for name, server in servers.items()}
        refinery.clients = {stage: by_model[name] for stage, name in refinery.settings.models.items()}
        for block in blocks:
            await _refine_block(task, refinery, source, block, progress)


async def _refine_block(task: Task, refinery: Refinery, source: Source, block: Block, progress: _Progress) -> None:
    started = time.monotonic()
    failed_before = Counter(source.failed)
    documents = await asyncio.to_thread(lambda: list(source.read(block)))
    failed = Counter(source.failed) - failed_before
    progress.block_total = len(documents) + failed.total()
    progress.done += failed.total()
    rows: list[dict[str, Any] | None] = [None] * len(documents)
    execution = refinery.settings.execution

    async def one(item: tuple[int, Document, DocPrompt | None]) -> None:
        number, document, prompt = item
        written = await refinery.write(document, prompt)
        rows[number] = row(document, written, execution)
        progress.done += 1
        progress.computed += 1
        progress.tell()

    # Twice as many documents as requests, so that the server's batch stays full while a document changes stages.
    await _at_most(2 * refinery.settings.serve.requests_in_flight, one, refinery.prompted(documents))
    note = {
        "failed": dict(failed),
        "seconds": time.monotonic() - started,
        "server_version": refinery.server_version,
        "parameters": refinery.parameters,
    }
    _publish_programs(_path(task, block, "programs.parquet"), rows, note)
    await asyncio.to_thread(_finish, task, refinery.settings, source, block, documents)


async def _at_most(limit: int, function: Callable[[T], Awaitable[None]], items: AsyncIterator[T]) -> None:
    """Run `function` on all items, at most `limit` at a time; the first exception ends the others and is raised."""
    running: set[asyncio.Future[None]] = set()
    try:
        async for item in items:
            if len(running) >= limit:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for finished in done:
                    finished.result()
            running.add(asyncio.ensure_future(function(item)))
        for finished in asyncio.as_completed(running):
            await finished
    finally:
        for unfinished in running:
            unfinished.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _publish_programs(path: Path, rows: Sequence[dict[str, Any] | None], note: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(draft: Path) -> None:
        table = pa.Table.from_pylist(list(rows), schema().with_metadata({_NOTE: json.dumps(note)}))
        pq.write_table(table, draft, compression="zstd")

    publish_file(path, write)


def _finish(
    task: Task, settings: Settings, source: Source, block: Block, documents: Sequence[Document] | None = None
) -> None:
    """From a block's published programs make its refined documents and its manifest, unless they are there."""
    import pyarrow.parquet as pq

    if _path(task, block, "json").exists():
        return
    path = _path(task, block, "programs.parquet")
    with pq.ParquetFile(path) as file:
        counted = file.read(columns=_COUNTED)
    if documents is None:
        documents = list(source.read(block))
    if counted.num_rows != len(documents):
        raise RuntimeError(
            f"{block.path}: {len(documents)} documents, but its programs file has {counted.num_rows} rows"
        )

    def executed() -> Iterator[Executed]:
        for document, record in zip(documents, read_rows(path), strict=True):
            stored = Stored.of(document)
            hash_in = check_row(record, stored.id, stored.utf8)
            result = execute(stored.id, stored.utf8, record.written, settings.execution)
            yield Executed(stored, result, len(document.text), hash_in)

    counts = Counts()
    written = write_stored(_path(task, block, "refined.parquet"), counts.kept(executed()))
    note = json.loads(pq.read_schema(path).metadata[_NOTE])
    manifest = _manifest_of(counted.to_pylist(), note, counts) | {"block": block.index}
    if written["documents"] != manifest["kept"]:
        raise RuntimeError(
            f"{block.path}: {written['documents']} refined documents, but the programs say {manifest['kept']}"
        )
    publish_json(_path(task, block, "json"), manifest)


def _manifest_of(rows: Sequence[dict[str, Any]], note: dict[str, Any], counts: Counts) -> dict[str, Any]:
    """A block's manifest, from the rows of its programs file, the note in it and the counts of executing it."""
    outcomes = Counter(record["outcome"] for record in rows)
    failed = sum(note["failed"].values())
    doc_status = Counter("ok" if record["doc_score"] is not None else "not_scored" for record in rows)
    total = {key: sum(record[key] for record in rows) for key in ("doc_tokens", "chunk_tokens", "output_tokens")}
    return {
        "in": len(rows) + failed,
        "kept": outcomes["untouched"] + outcomes["edited"],
        "failed": failed,
        **{name: outcomes[name] for name in OUTCOMES},
        "failures": note["failed"],
        "reasons": dict(Counter(record["reason"] for record in rows if record["reason"])),
        "doc_cut": sum(record["doc_cut"] for record in rows),
        "programs": {
            "doc": dict(doc_status),
            "chunk": dict(Counter(chunk["status"] for record in rows for chunk in record["chunks"])),
        },
        # A score needs no decoding: it is read at the last position of the prompt.
        "tokens": {
            "doc_prefill": total["doc_tokens"],
            "doc_decode": 0,
            "chunk_prefill": total["chunk_tokens"],
            "chunk_decode": total["output_tokens"],
        },
        **{key: sum(record[key] for record in rows) for key in _SUMMED},
        **{name: counts.counters[name] for name in _COUNTERS},
        "digest_in": str(counts.digest_in),
        "digest_out": str(counts.digest_out),
        "seconds": note["seconds"],
        "documents_per_second": len(rows) / note["seconds"] if note["seconds"] else 0.0,
        "server_version": note["server_version"],
        "parameters": note["parameters"],
    }


def seal(task: Task) -> dict[str, Any]:
    """Check that every block is there and its counts add up; returns the sums over all blocks.

    RuntimeError when a block is missing, or documents were lost or doubled.
    """
    blocks = open_source(task).blocks
    missing = [block.index for block in blocks if not _path(task, block, "json").exists()]
    if missing:
        raise RuntimeError(f"{task.out}: {len(missing)} of {len(blocks)} blocks are missing, first {missing[:5]}")
    manifests = [_checked_manifest(task, block) for block in blocks]
    add = {key: sum(manifest[key] for manifest in manifests) for key in ("in", "kept", "failed", *OUTCOMES)}
    sums = (*_SUMMED, "seconds", "doc_cut")
    return {
        "documents": add,
        "programs": add_counters([manifest["programs"] for manifest in manifests], ("doc", "chunk")),
        **add_counters(manifests, ("reasons", "failures", *_COUNTERS)),
        "tokens": {kind: sum(manifest["tokens"][kind] for manifest in manifests) for kind in TOKEN_KINDS},
        "parameters": manifests[0]["parameters"],
        "server_version": ", ".join(sorted({manifest["server_version"] for manifest in manifests})),
        **{key: sum(manifest[key] for manifest in manifests) for key in sums},
        "digest_in": Digest.total(manifest["digest_in"] for manifest in manifests),
        "digest_out": Digest.total(manifest["digest_out"] for manifest in manifests),
    }


def _checked_manifest(task: Task, block: Block) -> dict[str, Any]:
    import pyarrow.parquet as pq

    manifest = _manifest(task, block)
    if manifest["in"] != manifest["kept"] + manifest["dropped"] + manifest["failed"]:
        raise RuntimeError(f"{task.out}: block {block.index}: documents were lost or doubled: {manifest}")
    for kind, expected in (("programs", manifest["in"] - manifest["failed"]), ("refined", manifest["kept"])):
        path = _path(task, block, f"{kind}.parquet")
        rows = pq.read_metadata(path).num_rows
        if rows != expected:
            raise RuntimeError(f"{path}: {rows} rows, but its manifest says {expected}")
    return manifest


def _manifest(task: Task, block: Block) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(_path(task, block, "json").read_text())
    return manifest


def _path(task: Task, block: Block, suffix: str) -> Path:
    return task.out / "blocks" / f"{block.index:05d}.{suffix}"
