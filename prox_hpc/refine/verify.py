"""Finished pilot, refine and execute artifacts checked again from their files: every count, every hash, every digest.

A seal trusts what the tasks of its step have just written. This trusts nothing: it reads the corpus, the programs and
the documents once more, executes the programs of a refine step again, and says what does not fit, file by file, and
how it is mended. No model runs, nothing is written.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from prox_hpc.corpus.blocks import check_failed, failed_blocks, failure_path
from prox_hpc.corpus.read import Block, Source, Stored, open_source
from prox_hpc.corpus.write import block_path
from prox_hpc.programs.record import text_hash
from prox_hpc.refine import execute, pilot
from prox_hpc.refine.blocks import add_manifests, checked_manifest, damaged, manifest_of, path_of, remade_manifest
from prox_hpc.refine.counts import Digest
from prox_hpc.refine.records import Execution
from prox_hpc.task import Task


def problems(task: Task) -> Iterator[str]:
    """What is wrong with a step's published artifact, a line each: `path: what; remedy`; nothing if all is well."""
    yield from _listed(task)
    if task.step.kind == "pilot":
        yield from _tried(task.out, "its figures", partial(_of_pilot, task))
        return
    source = open_source(task)
    failed = failed_blocks(task.out, (block.index for block in source.blocks))
    found = list(_leftovers(task.out, failed))
    yield from found
    check = _of_refine if task.step.kind == "refine" else _of_execute
    sound = [block for block in source.blocks if block.index not in failed]
    for block in sound:
        for problem in _tried(task.out, f"block {block.index}", partial(check, task, source, block)):
            found.append(problem)
            yield problem
    if not found:
        yield from _tried(task.out, "the sum of its blocks", partial(_of_summary, task, source, sound, failed))


def failures(task: Task) -> dict[int, str]:
    """Why blocks of a published artifact could not be read, by number; the step was allowed to go on without them."""
    if task.step.kind == "pilot":
        return {}
    return failed_blocks(task.out, (block.index for block in open_source(task).blocks))


def _tried(artifact: Path, what: str, check: Callable[[], Iterator[str]]) -> Iterator[str]:
    try:
        yield from check()
    except RuntimeError as error:  # tells the file and the remedy
        yield _one_line(error)
    except Exception as error:  # whatever is wrong with a file is what is looked for; the next one is read
        yield f"{artifact}: {what}: cannot be read ({type(error).__name__}: {_one_line(error)}); {_again(artifact)}"


def _again(artifact: Path) -> str:
    return f"restore it, or remove what is damaged and {artifact / 'artifact.json'} and launch again"


def _listed(task: Task) -> Iterator[str]:
    """Files of the artifact's list that are missing or have another size, and files that it does not list."""
    artifact = task.out
    listed = json.loads((artifact / "artifact.json").read_text()).get("files", {})
    there = {str(path.relative_to(artifact)): path.stat().st_size for path in artifact.rglob("*") if path.is_file()}
    for name, size in listed.items():
        if there.get(name) == size:
            continue
        what = "is missing" if name not in there else f"has {there[name]} bytes, was published with {size}"
        yield _lost(task, name, what)
    for name in sorted(there.keys() - listed.keys() - {"artifact.json"}):
        if listed and not name.endswith(".tmp"):
            yield f"{artifact / name}: was not there when the artifact was published; remove it"


def _lost(task: Task, name: str, what: str) -> str:
    """`what` is wrong with a file of the list, and the remedy."""
    index, _, suffix = Path(name).name.partition(".")
    if task.step.kind == "refine" and suffix in ("json", "refined.parquet", "programs.parquet"):
        return str(damaged(task.out, Block(int(index), ""), suffix, what))
    more = [f"blocks/{index}.json"] if suffix == "parquet" and task.step.kind == "execute" else []
    return f"{task.out / name}: {what}; {_remedy(task.out, name, *more)}"


def _remedy(artifact: Path, *names: str) -> str:
    gone = [str(artifact / name) for name in dict.fromkeys([*names, "artifact.json"]) if (artifact / name).exists()]
    return f"remove {' '.join(gone)} and launch again"


def _leftovers(artifact: Path, failed: dict[int, str]) -> Iterator[str]:
    """Half-published files of blocks that failed: readers take every file for a block."""
    for index in failed:
        for path in sorted((artifact / "blocks").glob(f"{index:05d}.*")):
            if path != failure_path(artifact, index):
                yield f"{path}: belongs to a block that could not be read; remove it"


def _of_refine(task: Task, source: Source, block: Block) -> Iterator[str]:
    artifact = task.out
    failed_before = source.failed.total()
    manifest = manifest_of(artifact, block)
    execution = Execution.of(task.config, task.optional_input("pilot"))
    expected, changes = remade_manifest(artifact, block, source, execution)
    if changes:
        told = ", ".join(f"{number} {change}" for change, number in changes.items())
        what = f"its programs give other documents than it says came out ({told})"
        yield str(damaged(artifact, block, "programs.parquet", what))
        return
    failed = source.failed.total() - failed_before
    if failed != manifest["failed"]:
        what = f"says failed {manifest['failed']}, {block.path} has {failed} records that give no document"
        yield str(damaged(artifact, block, "programs.parquet", what))
    for name, value in json.loads(json.dumps(expected)).items():
        if manifest.get(name) != value:
            yield str(damaged(artifact, block, "json", f"says {name} {manifest.get(name)}, its files give {value}"))
    written, documents = _digest(path_of(artifact, block, "refined.parquet"), block.index)
    if (str(written), documents) != (expected["digest_out"], expected["kept"]):
        what = f"its {documents} documents are not the {expected['kept']} that the programs give"
        yield str(damaged(artifact, block, "refined.parquet", what))


def _of_execute(task: Task, source: Source, block: Block) -> Iterator[str]:
    path = block_path(task.out, block.index)
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
    for name, value in expected.items():
        if counts.get(name) != value:
            what = f"{counts_path}: says {name} {counts.get(name)}, its files give {value}"
            yield f"{what}; {_remedy(task.out, f'blocks/{counts_path.name}', f'blocks/{path.name}')}"


def _of_pilot(task: Task) -> Iterator[str]:
    scores, figures = task.out / pilot.SCORES, task.out / pilot.FILE
    found = pilot.figures(scores, task.config["refiner"]["doc_retention"])
    for path, said in (
        (figures, json.loads(figures.read_text())),
        (task.out / "artifact.json", json.loads((task.out / "artifact.json").read_text())["summary"]),
    ):
        if said != json.loads(json.dumps(found)):
            yield f"{path}: is not what {scores.name} gives; {_remedy(task.out, path.name)}"


def _of_summary(task: Task, source: Source, sound: list[Block], failed: dict[int, str]) -> Iterator[str]:
    path = task.out / "artifact.json"
    if task.step.kind == "refine":
        check_failed(task.out, failed, source.allowed)
        manifests = [checked_manifest(task.out, block) for block in sound]
        summary: dict[str, Any] = {**add_manifests(manifests), "failed_blocks": len(failed)}
    else:
        summary = execute.seal(task)
    if json.loads(json.dumps(summary)) != json.loads(path.read_text())["summary"]:
        yield f"{path}: its summary is not the sum of its blocks; {_remedy(task.out)}"


def _digest(path: Path, index: int) -> tuple[Digest, int]:
    """The digest of a Parquet file's documents, and how many there are."""
    digest, documents = Digest(), 0
    stored: Iterator[Stored] = Source([]).read_stored(Block(index, str(path)))
    for document in stored:
        digest.add(document.id, text_hash(document.utf8))
        documents += 1
    return digest, documents


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
