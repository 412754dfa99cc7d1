"""Step `score`: how good a refiner's programs are, against the corpus's gold.

Doc F1 is the F1 of "keep" over documents; line F1 compares the sets of removed lines and leaves normalisations out
(the paper's definitions, appendix A.3). The paper does not say how line F1 is averaged, so both are given: micro, over
all lines of all documents, and the mean of the documents' own F1. Documents the chunk stage did not program do not
count in line F1.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prox_hpc.corpus.blocks import failed_blocks
from prox_hpc.corpus.read import Document, open_source
from prox_hpc.programs import parse, removed_by_chunks, removed_lines
from prox_hpc.publish import publish_json
from prox_hpc.task import Task

FILE = "score.json"
KEEP = "keep_doc()"


@dataclass
class Confusion:
    """Counts of a two-class decision; what is "positive" is the caller's to say."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    def add(self, predicted: bool, gold: bool) -> None:
        self.true_positive += predicted and gold
        self.false_positive += predicted and not gold
        self.false_negative += gold and not predicted
        self.true_negative += not predicted and not gold

    @property
    def total(self) -> int:
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative

    def figures(self) -> dict[str, float | int | None]:
        """precision, recall, F1 (1 when there was nothing to find and nothing was found; None without any case)."""
        found, there = self.true_positive + self.false_positive, self.true_positive + self.false_negative
        either = found + there
        return {
            "f1": None if not self.total else 2 * self.true_positive / either if either else 1.0,
            "precision": self.true_positive / found if found else None,
            "recall": self.true_positive / there if there else None,
            **{key: getattr(self, key) for key in self.__dataclass_fields__},
        }


@dataclass
class Score:
    """Running score over documents."""

    doc: Confusion = field(default_factory=Confusion)
    """Positive: keep."""
    line: Confusion = field(default_factory=Confusion)
    """Positive: removed."""
    page_f1: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, document: Document, row: Mapping[str, Any]) -> None:
        """One document with gold (or without, then it is only counted) and its row of the programs file."""
        self.counts["documents"] += 1
        self.counts.update(f"chunk_{chunk['status']}" for chunk in row["chunks"])
        if document.gold_drop is not None and row["doc_program"] is not None:
            self.doc.add(predicted=row["doc_program"] == KEEP, gold=not document.gold_drop)
        if document.gold_drop or document.gold_program is None:
            return
        if not row["chunks"]:
            self.counts["not_programmed"] += 1
            return
        lines = document.text.count("\n") + 1
        self.add_lines(
            removed_by_chunks(row["chunks"]), removed_lines(parse(document.gold_program, "chunk"), lines), lines
        )

    def add_lines(self, predicted: set[int], gold: set[int], line_count: int) -> None:
        """Line numbers removed from a document of `line_count` lines, by the refiner and by gold."""
        both = len(predicted & gold)
        self.line.true_positive += both
        self.line.false_positive += len(predicted) - both
        self.line.false_negative += len(gold) - both
        self.line.true_negative += line_count - len(predicted | gold)
        either = len(predicted) + len(gold)
        self.page_f1.append(2 * both / either if either else 1.0)

    def figures(self) -> dict[str, Any]:
        pages = self.page_f1
        page_f1 = math.fsum(pages) / len(pages) if pages else None
        return {
            "doc": {**self.doc.figures(), "documents": self.doc.total},
            "line": {**self.line.figures(), "documents": len(pages), "page_f1": page_f1},
            "counts": dict(self.counts),
        }


def run(task: Task) -> None:
    """Score every block of the programs against the corpus and publish `score.json`.

    RuntimeError when a block has no programs, or they are another document's.
    """
    import pyarrow.parquet as pq

    if (task.out / FILE).exists():
        return
    source, programs = open_source(task), task.input("programs")
    score = Score()
    failed = failed_blocks(programs, (block.index for block in source.blocks))
    for done, block in enumerate(source.blocks, 1):
        if block.index in failed:  # as the refine step's seal allowed: there are no programs to score
            continue
        path = programs / "blocks" / f"{block.index:05d}.programs.parquet"
        if not path.exists():
            raise RuntimeError(f"{path}: the block has no programs")
        rows = pq.read_table(path, columns=["id", "doc_program", "chunks"]).to_pylist()
        for document, row in zip(source.read(block), rows, strict=True):
            if document.id != row["id"]:
                raise RuntimeError(f"{path}: holds {row['id']!r} where the corpus has {document.id!r}")
            score.add(document, row)
        task.progress(done, len(source.blocks), "blocks")
    publish_json(task.out / FILE, score.figures())


def seal(task: Task) -> dict[str, Any]:
    """The figures."""
    figures: dict[str, Any] = json.loads((task.out / FILE).read_text())
    return figures
