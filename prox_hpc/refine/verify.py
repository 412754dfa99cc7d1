"""Finished refine and execute artifacts checked again from their files: every count, every hash, every digest.

A seal trusts what the tasks of its step have just written. This trusts nothing: it reads the corpus, the programs and
the documents once more and says what does not fit, file by file. No model runs, nothing is written.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from prox_hpc.corpus.read import Block, Source, Stored, open_source
from prox_hpc.corpus.write import block_path
from prox_hpc.programs.record import text_hash
from prox_hpc.refine import execute
from prox_hpc.refine import task as refine
from prox_hpc.refine.counts import Digest
from prox_hpc.refine.records import OUTCOMES, programs_path, read_rows
from prox_hpc.task import Task

KINDS: dict[str, Callable[[Task], dict[str, Any]]] = {"refine": refine.seal, "execute": execute.seal}
"""Kinds of steps that can be verified, with what sums up their blocks."""


def problems(task: Task) -> Iterator[str]:
    """What is wrong with the published artifact of a step, a line each: `path: what`; nothing if all is well."""
    found = list(_listed(task.out))
    yield from found
    source = open_source(task)
    for block in source.blocks:
        check = _of_refine if task.step.kind == "refine" else _of_execute
        try:
            yield from check(task.out, source, block)
        except Exception as error:  # whatever is wrong with a file is what is looked for; the next block is read
            yield f"{task.out}: block {block.index}: cannot be read ({type(error).__name__}: {_one_line(error)})"
    try:
        summary = json.loads(json.dumps(KINDS[task.step.kind](task)))
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        yield f"{task.out}: its blocks do not add up ({_one_line(error)})"
        return
    if summary != json.loads((task.out / "artifact.json").read_text())["summary"]:
        yield f"{task.out / 'artifact.json'}: its summary is not the sum of its blocks"


def _listed(artifact: Path) -> Iterator[str]:
    """Files of the artifact's list that are missing or have another size, and files that it does not list."""
    listed = json.loads((artifact / "artifact.json").read_text()).get("files", {})
    there = {str(path.relative_to(artifact)): path.stat().st_size for path in artifact.rglob("*") if path.is_file()}
    for name, size in listed.items():
        if name not in there:
            yield f"{artifact / name}: is missing"
        elif there[name] != size:
            yield f"{artifact / name}: has {there[name]} bytes, was published with {size}"
    for name in sorted(there.keys() - listed.keys() - {"artifact.json"}):
        if listed and not name.endswith(".tmp"):
            yield f"{artifact / name}: was not there when the artifact was published"


def _of_refine(artifact: Path, source: Source, block: Block) -> Iterator[str]:
    programs = programs_path(artifact, block.index)
    manifest_path = programs.with_name(f"{block.index:05d}.json")
    manifest = json.loads(manifest_path.read_text())
    recorded, read, outcomes = Digest(), Digest(), Counter[str]()
    failed_before = source.failed.total()
    for document, row in zip_longest(source.read_stored(block), read_rows(programs)):
        if document is None or row is None:
            yield f"{programs}: has not as many rows as {block.path} has documents"
            return
        found = text_hash(document.utf8)
        if (document.id, found) != (row.id, row.text_hash_in):
            yield f"{programs}: row {outcomes.total()} is of {row.id!r} or another text, the corpus has {document.id!r}"
            return
        read.add(document.id, found)
        outcomes[row.outcome] += 1
        if row.text_hash_out is not None:
            recorded.add(row.id, row.text_hash_out)
    failed = source.failed.total() - failed_before
    refined = programs.with_name(f"{block.index:05d}.refined.parquet")
    written, documents = _digest(refined, block.index)
    expected = {
        "in": outcomes.total() + failed,
        "failed": failed,
        "kept": documents,
        **{name: outcomes[name] for name in OUTCOMES},
        "digest_in": str(read),
        "digest_out": str(written),
    }
    yield from _differences(manifest_path, manifest, expected)
    if str(recorded) != str(written):
        yield f"{refined}: its documents are not those that the programs file says came out"


def _of_execute(artifact: Path, source: Source, block: Block) -> Iterator[str]:
    path = block_path(artifact, block.index)
    counts_path = path.with_suffix(".json")
    counts = json.loads(counts_path.read_text())
    read = Digest()
    failed_before, documents_in = source.failed.total(), 0
    for document in source.read_stored(block):
        read.add(document.id, text_hash(document.utf8))
        documents_in += 1
    written, documents = _digest(path, block.index)
    expected = {
        "documents": documents,
        "documents_in": documents_in + source.failed.total() - failed_before,
        "digest_in": str(read),
        "digest_out": str(written),
    }
    yield from _differences(counts_path, counts, expected)


def _digest(path: Path, index: int) -> tuple[Digest, int]:
    """The digest of a Parquet file's documents, and how many there are."""
    digest, documents = Digest(), 0
    stored: Iterator[Stored] = Source([]).read_stored(Block(index, str(path)))
    for document in stored:
        digest.add(document.id, text_hash(document.utf8))
        documents += 1
    return digest, documents


def _differences(path: Path, said: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        if said.get(name) != value:
            yield f"{path}: says {name} {said.get(name)}, its files give {value}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
