"""The `heldout` step: clean texts nobody trained on, and questions about the world.

Configuration for `kind: world`: documents, items, seed, world_seed (default 0). The texts are the gold texts of good
pages of test sites, drawn from a stream of their own; the questions are cloze items about the world's facts.
For `kind: files`: `source` (as `prox_hpc.corpus.files` describes it), documents (optional: at most so many);
the texts are those documents after their gold programs, or as they are when there is no keep column, and there are no
questions.
Product: `text.jsonl` ({"text"}) and, for the world, `cloze.jsonl` ({"query", "choices", "gold"}; a choice continues
the query after one space).
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from prox_hpc.corpus.blocks import documents
from prox_hpc.corpus.read import Source
from prox_hpc.corpus.web import make_page
from prox_hpc.corpus.world import ask, make_world
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_file
from prox_hpc.task import Task


def run(task: Task) -> None:
    config = task.config
    if config["kind"] == "world":
        _publish_lines(task.out / "cloze.jsonl", world_items(config))
        _publish_lines(task.out / "text.jsonl", ({"text": text} for text in world_texts(config)))
    elif config["kind"] == "files":
        texts = islice(
            gold_texts(Source.of_files(config["source"]), config["source"]["keep_column"] is None),
            config.get("documents"),
        )
        _publish_lines(task.out / "text.jsonl", ({"text": text} for text in texts))
    else:
        raise UserError(f"evaluation.kind={config['kind']}: unknown; choose world or files")


def seal(task: Task) -> dict[str, Any]:
    """Documents, characters, UTF-8 bytes and items; UserError when there is no text to evaluate on."""
    texts = [row["text"] for row in _read_lines(task.out / "text.jsonl")]
    if not texts:
        raise UserError("evaluation.path: no document has clean text; check evaluation.keep_column")
    cloze = task.out / "cloze.jsonl"
    return {
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        "bytes": sum(len(text.encode()) for text in texts),
        "items": len(_read_lines(cloze)) if cloze.exists() else 0,
    }


def world_texts(config: dict[str, Any]) -> Iterator[str]:
    """Gold texts of good pages that no corpus contains: their seed is not a number, as a corpus's seed is."""
    seed = f"heldout-{config['seed']}"
    for row in range(config["documents"]):
        yield make_page("test", seed, 0, row, world_seed=config.get("world_seed", 0), junk=False).clean


def world_items(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rng = random.Random(f"cloze/{config['seed']}")
    try:
        questions = ask(rng, make_world(config.get("world_seed", 0)), config["items"])
    except ValueError as error:
        raise UserError(f"evaluation.items={config['items']}: {error}; ask for fewer") from error
    return map(asdict, questions)


def gold_texts(source: Source, as_they_are: bool = False) -> Iterator[str]:
    """The documents after their gold programs; those without a program, or with nothing left, are passed over.

    as_they_are: there are no flags, the user says that the texts are clean.
    """
    from prox_hpc.programs import execute, parse

    for document in documents(source):
        if as_they_are and document.text.strip():
            yield document.text
        if document.gold_program is None:
            continue
        lines = document.text.split("\n")
        # no cap on operations: this program comes from the flags, not from a model
        text = "\n".join(execute(parse(document.gold_program, "chunk", caps=_uncapped()), lines).lines)
        if text.strip():
            yield text


def _uncapped() -> Any:
    from prox_hpc.programs import Caps

    return Caps(program_bytes=1 << 30, operations=1 << 20)


def _publish_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    import orjson

    if path.exists():
        return

    def write(draft: Path) -> None:
        with draft.open("wb") as stream:
            for row in rows:
                stream.write(orjson.dumps(row) + b"\n")

    publish_file(path, write)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    import orjson

    with path.open("rb") as stream:
        return [orjson.loads(line) for line in stream]
