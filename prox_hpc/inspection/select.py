"""Documents drawn from a run: all of them are read and replayed, those that match are drawn from, uniformly.

Memory holds the sample only, however large the corpus is; the same seed draws the same documents.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from prox_hpc.corpus.read import Document
from prox_hpc.errors import UserError
from prox_hpc.inspection.view import DocumentView, domain, reports, view
from prox_hpc.programs import DocumentResult, operation_name
from prox_hpc.programs.document import ChunkStatus
from prox_hpc.programs.language import CALLS
from prox_hpc.recorded import Recorded
from prox_hpc.refine.records import Execution, outcome, replay

STATUSES: tuple[str, ...] = get_args(ChunkStatus)
OPERATIONS = tuple(call.name for call in CALLS["chunk"] if not call.alias)
_EXAMPLES = 8
"""Values named at most when nothing matches."""


@dataclass(frozen=True)
class Wanted:
    """Which documents; what is empty or None does not matter, and all that is given must hold.

    statuses: final status of any chunk. ops: name of any operation. refused: an operation (of those in `ops`, if any)
    was refused. domain: a host, or what hosts end in. reason: part of any reason: of dropping, of refusing, or why a
    program is malformed or cut.
    """

    statuses: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    refused: bool = False
    outcome: str | None = None
    reason: str | None = None
    domain: str | None = None
    id: str | None = None

    def document(self, document: Document) -> bool:
        """What can be told before the programs are executed."""
        if self.id is not None and document.id != self.id:
            return False
        return self.domain is None or f".{domain(document)}".endswith(f".{self.domain.lower().lstrip('.')}")

    def result(self, row: Mapping[str, Any], result: DocumentResult) -> bool:
        """What their execution tells."""
        operations = [one for one in result.operations if not self.ops or operation_name(one.op) in self.ops]
        if (self.ops and not operations) or (self.refused and all(one.outcome != "refused" for one in operations)):
            return False
        if self.outcome is not None and outcome(result) != self.outcome:
            return False
        if self.statuses and not set(self.statuses) & {chunk.status for chunk in reports(row, result)}:
            return False
        return self.reason is None or any(self.reason.lower() in one for one in _reasons(row, result))

    def __str__(self) -> str:
        given = {"status": ",".join(self.statuses), "op": ",".join(self.ops), "outcome": self.outcome}
        given |= {"reason": self.reason, "domain": self.domain, "id": self.id}
        words = [f"--{name} {value}" for name, value in given.items() if value]
        return " ".join([*words, "--refused"] if self.refused else words)


def _reasons(row: Mapping[str, Any], result: DocumentResult) -> Iterator[str]:
    """Why it was dropped, operations refused, programs malformed or cut."""
    if result.reason:
        yield result.reason
    for chunk in reports(row, result):
        if chunk.reason:
            yield chunk.reason
        yield from (done.reason for done in chunk.operations if done.reason)


@dataclass
class Tally:
    """What there was to choose from, to tell whoever found nothing. Documents that `Wanted.document` let pass."""

    domain: Counter[str] = field(default_factory=Counter)
    outcome: Counter[str] = field(default_factory=Counter)
    status: Counter[str] = field(default_factory=Counter)
    op: Counter[str] = field(default_factory=Counter)
    reason: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, Any], result: DocumentResult) -> None:
        self.outcome[outcome(result)] += 1
        self.status.update(chunk.status for chunk in reports(row, result))
        self.op.update(operation_name(one.op) for one in result.operations)
        self.reason.update(_reasons(row, result))


@dataclass
class Selection:
    """views: the documents drawn, in the corpus's order. documents: read. matched: of which match."""

    views: list[DocumentView]
    documents: int
    matched: int


def select(
    recorded: Recorded,
    execution: Execution,
    wanted: Wanted,
    size: int,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda documents, matched: None,
) -> Selection:
    """Draw at most `size` of the documents that match. tell: told how far it is, now and then.

    UserError when none matches, with what there is.
    """
    lot = random.Random(seed)
    drawn: list[tuple[int, Document, dict[str, Any], DocumentResult]] = []
    tally = Tally()
    documents = matched = 0
    for block in recorded.source.blocks:
        for document, row in recorded.read(block):
            documents += 1
            if documents % 1000 == 0:
                tell(documents, matched)
            if wanted.domain is not None:
                tally.domain[domain(document)] += 1
            if not wanted.document(document):
                continue
            result = replay(document, row, execution)
            tally.add(row, result)
            if not wanted.result(row, result):
                continue
            matched += 1
            place = len(drawn) if len(drawn) < size else lot.randrange(matched)  # Vitter's algorithm R
            if place < size:
                drawn[place : place + 1] = [(documents, document, row, result)]
    if not matched:
        raise UserError(_nothing(recorded, wanted, documents, tally))
    drawn.sort(key=lambda one: one[0])
    return Selection([view(document, row, result) for _, document, row, result in drawn], documents, matched)


def _nothing(recorded: Recorded, wanted: Wanted, documents: int, tally: Tally) -> str:
    """One line: nothing was found, and what there is instead."""
    if not documents:
        return f"{recorded.programs}: holds no documents"
    there = []
    if wanted.id is not None and not tally.outcome:
        there.append("give the whole id")
    elif wanted.domain is not None and not tally.outcome:
        there.append(f"domains: {_counts(tally.domain)}")
    else:
        counts = (
            ("documents", wanted.outcome, tally.outcome),
            ("programs", wanted.statuses, tally.status),
            ("operations", wanted.ops, tally.op),
            ("reasons", wanted.reason or wanted.refused, tally.reason),
        )
        there += [f"{name}: {_counts(counter)}" for name, asked, counter in counts if asked]
    return f"{recorded.programs}: none of {documents:,} documents matches {wanted}; {'; '.join(there)}"


def _counts(counts: Counter[str]) -> str:
    named = ", ".join(f"{count:,} {name}" for name, count in counts.most_common(_EXAMPLES))
    return (named or "none") + (f", and {len(counts) - _EXAMPLES:,} more kinds" if len(counts) > _EXAMPLES else "")
