"""Where the language (`v1`) and the released executor (`prox_v1`) part ways over a document's programs, and why.

The causes are those of `readings`. To tell which of them matter, the document is executed again by the released
executor mended, which treats the calls under some causes, or a rule for the whole document, as v1 does. The causes of a
difference are a smallest set of this kind: mending them all leads to v1's result, and none of them can be left out. If
mending everything does not, or nothing is found that sets a call apart, the cause is `Cause.UNEXPLAINED`: our defect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from prox_hpc.programs.document import (
    DEFAULT_CHECKS,
    DROPPED_BY_DOC_PROGRAM,
    ChunkProgram,
    ChunkReport,
    DocumentChecks,
    DocumentResult,
    refine_document,
)
from prox_hpc.programs.execute import Outcome, Span, merge_spans, without_spans
from prox_hpc.programs.language import DEFAULT_CAPS, Caps, DropDoc, Normalize, RemoveLines
from prox_hpc.programs.parse import parse
from prox_hpc.programs.prox_v1 import Editing, Removal, Step, drops, judge
from prox_hpc.programs.readings import MISREADINGS, Cause, ProgramLine, program_lines

_DOCUMENT_CAUSES: Final = (Cause.DROP_SUBSTRING, Cause.REVERTED, Cause.UNTOUCHED, Cause.NO_WORDS, Cause.CHECKS)

# The order in which causes are tried for being dispensable: of several explanations the last one stays. So a document
# is "reverted" only if that, and not what the calls themselves did or failed to do, makes the difference.
_DISPENSABLE: Final = (
    Cause.CHECKS,
    *(cause for cause in Cause if cause not in _DOCUMENT_CAUSES),
    Cause.REVERTED,
    Cause.UNTOUCHED,
    Cause.NO_WORDS,
    Cause.DROP_SUBSTRING,
)


@dataclass(frozen=True, slots=True)
class Call:
    """A call (or what stands on one line) that the executors treat differently.

    chunk: first line of its chunk in the document. line: its line in the chunk's program, from 0. text: as written.
    v1, prox_v1: what each did.
    """

    chunk: int
    line: int
    text: str
    causes: tuple[Cause, ...]
    v1: str
    prox_v1: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A document under both executors.

    causes: why the results differ, empty if they do not. calls: those that the causes concern. well_formed: causes of
    misreading (perhaps none) of each of its programs that has status "ok" in v1.
    """

    v1: DocumentResult
    prox_v1: DocumentResult
    causes: tuple[Cause, ...]
    calls: tuple[Call, ...]
    well_formed: tuple[tuple[Cause, ...], ...]

    @property
    def differ(self) -> bool:
        return self.v1.text != self.prox_v1.text

    @property
    def prox_v1_reason(self) -> str | None:
        """Why the released executor dropped the document or gave back the original, None if it did neither."""
        return self.prox_v1.reason or next((report.reason for report in self.prox_v1.chunks), None)


@dataclass(slots=True)
class Tally:
    """Counts over many comparisons."""

    documents: int = 0
    differ: int = 0
    reverted: int = 0
    well_formed: int = 0
    misread: int = 0
    causes: Counter[Cause] = field(default_factory=Counter)
    misreadings: Counter[Cause] = field(default_factory=Counter)

    def add(self, comparison: Comparison) -> None:
        self.documents += 1
        self.differ += comparison.differ
        self.reverted += comparison.prox_v1_reason == "too many errors"
        self.well_formed += len(comparison.well_formed)
        self.misread += sum(map(bool, comparison.well_formed))
        self.causes.update(comparison.causes)
        self.misreadings.update(chain.from_iterable(comparison.well_formed))

    def summary(self) -> dict[str, Any]:
        """As plain data. causes: documents that differ for this cause (one may have several); misreadings: well-formed
        programs (status "ok" in v1) with a call that is misread for this cause."""
        return {
            "documents": self.documents,
            "differ": self.differ,
            "reverted": self.reverted,
            "causes": {cause: self.causes[cause] for cause in Cause if self.causes[cause]},
            "well_formed": self.well_formed,
            "misread": self.misread,
            "misread_share": self.misread / self.well_formed if self.well_formed else 0.0,
            "misreadings": {cause: self.misreadings[cause] for cause in Cause if self.misreadings[cause]},
        }


def compare_document(
    text: str,
    chunk_programs: Sequence[ChunkProgram],
    *,
    doc_program: str | None = None,
    doc_truncated: bool = False,
    drop: bool = False,
    checks: DocumentChecks = DEFAULT_CHECKS,
    caps: Caps = DEFAULT_CAPS,
) -> Comparison:
    """Execute a document's programs by both executors and explain the difference.

    doc_program: what the refiner wrote in the doc stage, None if it was not asked. drop: the doc stage dropped the
    document by its score, which is the same for both. Others as of `refine_document`. A document whose results do not
    differ costs its two executions and a reading of its lines; else as many executions more as there are causes.
    """
    v1_drops = drop or _drops_by_v1(doc_program, doc_truncated, caps)
    prox_drops = drop or (doc_program is not None and drops(doc_program))
    v1 = refine_document(text, chunk_programs, drop=v1_drops, checks=checks, caps=caps)
    prox = refine_document(text, chunk_programs, drop=prox_drops, profile="prox_v1", checks=checks)
    program = _DocumentProgram(text, chunk_programs, v1, prox_drops, checks, caps)
    causes: tuple[Cause, ...] = ()
    calls: tuple[Call, ...] = ()
    if v1.text != prox.text:
        causes = program.explain(prox.text)
        calls = tuple(program.calls(frozenset(causes)))
    return Comparison(v1, prox, causes, calls, tuple(program.well_formed()))


def _drops_by_v1(doc_program: str | None, truncated: bool, caps: Caps) -> bool:
    return doc_program is not None and DropDoc() in parse(doc_program, "doc", truncated=truncated, caps=caps).operations


class _DocumentProgram:
    """All that is written about one document, line by line, to be executed with some causes mended."""

    def __init__(
        self,
        text: str,
        chunk_programs: Sequence[ChunkProgram],
        v1: DocumentResult,
        prox_drops: bool,
        checks: DocumentChecks,
        caps: Caps,
    ) -> None:
        self.text = text
        self.v1 = v1
        self.prox_drops = prox_drops
        self.checks = checks
        self.reports = v1.chunks
        # Without reports the doc stage has dropped the document, and no chunk program counts.
        programs = list(zip(chunk_programs, self.reports, strict=True)) if self.reports else []
        self.parts, places = _cut(text, [report for _, report in programs])
        last_line = text.count("\n")
        self.lines: list[list[ProgramLine]] = [
            list(program_lines(chunk, report, place, last_line, caps))
            for (chunk, report), place in zip(programs, places, strict=True)
        ]

    def explain(self, prox_text: str | None) -> tuple[Cause, ...]:
        """A smallest set of causes that makes the released executor's result v1's."""
        mended = {cause for line in chain.from_iterable(self.lines) for cause in line.causes}
        mended |= set(_DOCUMENT_CAUSES)
        target = self.v1.text
        if self.run(frozenset()) != prox_text or self.run(frozenset(mended)) != target:
            return (Cause.UNEXPLAINED,)
        for cause in _DISPENSABLE:
            if cause in mended and self.run(frozenset(mended - {cause})) == target:
                mended.discard(cause)
        return tuple(cause for cause in Cause if cause in mended)

    def run(self, mended: frozenset[Cause]) -> str | None:
        """The document's text (None: dropped) by the released executor with these causes mended."""
        if self.v1.reason == DROPPED_BY_DOC_PROGRAM or (self.prox_drops and Cause.DROP_SUBSTRING not in mended):
            return None
        editing = Editing(self.parts)
        removed: list[Span] = []
        for line in chain.from_iterable(self.lines):
            if line.causes <= mended:
                removed += _apply_as_v1(editing, line)
            else:
                for reading in line.readings:
                    editing.apply(reading)
        done = editing.finish()
        refined = "\n".join(without_spans(done.lines, merge_spans([*done.removed, *removed]), 0))
        return self._checked(refined, done.errors, mended)

    def _checked(self, refined: str, errors: int, mended: frozenset[Cause]) -> str | None:
        """The result after the released executor's checks, or v1's where they are mended."""
        if Cause.CHECKS in mended and refined == self.v1.after:
            return self.v1.text
        words = len(self.text.split())
        if refined == self.text and (Cause.UNTOUCHED if words else Cause.NO_WORDS) in mended:
            return refined
        verdict = judge(
            words,
            len(refined.split()),
            0 if Cause.REVERTED in mended else errors,
            threshold_2=self.checks.max_removed,
            min_words=self.checks.min_words,
        )
        return {"accepted": refined, "reverted": self.text}.get(verdict)

    def calls(self, causes: frozenset[Cause]) -> Iterator[Call]:
        """The calls under these causes that have an effect with one of the executors; if errors reverted the document,
        also those that count as errors."""
        editing = Editing(self.parts)
        for report, line in self._reported_lines():
            steps = [step for reading in line.readings if (step := editing.apply(reading)) is not None]
            errors = sum(reading.errors for reading in line.readings)
            effect = any(done.outcome == "applied" for done in [*line.outcomes, *steps])
            fails = errors or Cause.BEYOND_END in line.causes
            if (effect and line.causes & causes) or (fails and Cause.REVERTED in causes):
                found = tuple(cause for cause in Cause if cause in line.causes)
                yield Call(
                    report.first_line, line.number, line.text, found, _v1_did(report, line), _prox_did(steps, errors)
                )

    def _reported_lines(self) -> Iterator[tuple[ChunkReport, ProgramLine]]:
        for report, lines in zip(self.reports, self.lines, strict=True):
            for line in lines:
                yield report, line

    def well_formed(self) -> Iterator[tuple[Cause, ...]]:
        """For each program of status "ok" in v1: why the released executor misreads it, empty if it does not."""
        for report, lines in zip(self.reports, self.lines, strict=True):
            if report.status == "ok":
                found = {cause for line in lines for cause in line.causes}
                yield tuple(cause for cause in Cause if cause in found & MISREADINGS)


def _cut(text: str, reports: Sequence[ChunkReport]) -> tuple[list[str], list[int | None]]:
    """The text in parts, each a chunk or what lies between two, and for each chunk its part (None: it has no lines)."""
    lines = text.split("\n")
    parts: list[str] = []
    places: list[int | None] = []
    position = 0
    for report in reports:
        if report.status == "misplaced" or not report.line_count:
            places.append(None)
            continue
        if report.first_line > position:
            parts.append("\n".join(lines[position : report.first_line]))
        position = report.first_line + report.line_count
        places.append(len(parts))
        parts.append("\n".join(lines[report.first_line : position]))
    if position < len(lines):
        parts.append("\n".join(lines[position:]))
    return parts, places


def _apply_as_v1(editing: Editing, line: ProgramLine) -> Iterator[Span]:
    """Do in the line's chunk what v1 did; the lines to remove."""
    for outcome in line.outcomes:
        if outcome.outcome == "applied" and line.part is not None:
            if isinstance(outcome.op, RemoveLines):
                yield outcome.op.line_start, outcome.op.line_end
            elif isinstance(outcome.op, Normalize):
                part = editing.parts[line.part]
                editing.parts[line.part] = part.replace(outcome.op.source_str, outcome.op.target_str)


def _v1_did(report: ChunkReport, line: ProgramLine) -> str:
    if line.outcomes:
        return "; ".join(map(_did, line.outcomes))
    return f"nothing ({report.status}{': ' + report.reason if report.reason else ''})"


def _did(outcome: Outcome) -> str:
    if outcome.outcome == "refused":
        return f"refused: {outcome.reason}"
    if outcome.outcome == "no_change":
        return "no change"
    if isinstance(outcome.op, RemoveLines):
        return f"removed lines {outcome.op.line_start} to {outcome.op.line_end}"
    return f"replaced {outcome.affected}"


def _prox_did(steps: Sequence[Step], errors: int) -> str:
    done = [_step_did(step) for step in steps]
    if errors:
        done.append(f"{errors} error{'s' if errors > 1 else ''}")
    return "; ".join(done) or "ignored"


def _step_did(step: Step) -> str:
    if isinstance(step, Removal):
        did = f"lines {step.start} to {step.end}"
        return f"removed {did}" if step.outcome == "applied" else f"{did}: {step.reason}"
    did = f"{step.source!r} by {step.target!r}"
    return f"replaced {step.affected} {did}" if step.outcome == "applied" else f"{did}: {step.reason}"
