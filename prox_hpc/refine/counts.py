"""What became of the documents of a block, counted: one counting for the refine step, for arms and for replay.

Every count is reported: outcomes, why documents were dropped, what programs and operations came to and why not, and a
digest of what went in and what came out, so that nothing is lost unseen.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from xxhash import xxh3_128_intdigest

from prox_hpc.corpus.read import Stored
from prox_hpc.programs import DocumentResult, Operation
from prox_hpc.programs.language import OPERATION_NAMES
from prox_hpc.programs.record import text_hash
from prox_hpc.refine.records import OUTCOMES, Row, outcome

COUNTERS = ("outcomes", "reasons", "programs", "malformed", "operations", "refused", "changes")
"""Counters of a block, see `Counts`."""


class Executed(NamedTuple):
    """What becomes of a document in an arm.

    characters_in, hash_in: of its text. recorded: its row of the programs file, if the arm is made from one.
    """

    document: Stored
    result: DocumentResult[bytes]
    characters_in: int
    hash_in: str
    recorded: Row | None = None


class Digest:
    """Digest of a collection of documents that does not depend on their order, and counts a doubled one twice.

    The sum modulo 2**128 of the XXH3 (128 bits) of each document's text hash and id.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, identity: str, hash_of_text: str) -> None:
        self._sum += xxh3_128_intdigest(f"{hash_of_text}{identity}")

    def __str__(self) -> str:
        return f"{self._sum % 2**128:032x}"

    @staticmethod
    def total(digests: Iterable[str]) -> str:
        """The digest of several collections together."""
        return f"{sum(int(digest, 16) for digest in digests) % 2**128:032x}"


class Counts:
    """The counts of a block while it is executed.

    outcomes: documents by outcome. reasons: of dropped documents. programs: executed chunk programs by final status.
    malformed: why programs could not be read. operations: by call and outcome, e.g. {"normalize refused": 3}.
    refused: operations that could not apply, by reason. changes: against what the refine step itself made of the
    documents, e.g. {"edited -> dropped": 3}; only for arms made from recorded programs.
    """

    def __init__(self) -> None:
        self.characters_in = 0
        self.by: dict[str, Counter[str]] = {name: Counter() for name in COUNTERS}
        self._operations: Counter[tuple[type[Operation], str]] = Counter()
        self.digest_in, self.digest_out = Digest(), Digest()

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """All counters, by name."""
        named = {f"{OPERATION_NAMES[kind]} {done}": count for (kind, done), count in self._operations.items()}
        return {name: dict(counter) for name, counter in self.by.items()} | {"operations": named}

    def kept(self, executed: Iterable[Executed]) -> Iterator[Stored]:
        """The documents that stay, as the arm has them; all are counted."""
        for done in executed:
            document, result = done.document, done.result
            hash_out = None
            if result.outcome == "kept":
                hash_out = done.hash_in
                yield document
            elif result.outcome == "edited":
                hash_out = text_hash(result.after)
                yield Stored(document.id, result.after, document.metadata)
            if hash_out is not None:
                self.digest_out.add(document.id, hash_out)
            self._count(done, hash_out)

    def _count(self, done: Executed, hash_out: str | None) -> None:
        result, now = done.result, outcome(done.result)
        self.characters_in += done.characters_in
        self.digest_in.add(done.document.id, done.hash_in)
        self.by["outcomes"][now] += 1
        if result.reason is not None:
            self.by["reasons"][result.reason] += 1
        for report in result.chunks:
            self.by["programs"][report.status] += 1
            if report.status == "malformed":
                self.by["malformed"][report.reason or ""] += 1
            for operation in report.operations:
                self._operations[type(operation.op), operation.outcome] += 1
                if operation.outcome == "refused":
                    self.by["refused"][operation.reason or ""] += 1
        if done.recorded is not None and done.recorded.text_hash_out != hash_out:
            before = done.recorded.outcome
            self.by["changes"][f"{before} -> {now}" if before != now else f"{now} otherwise"] += 1

    def to_json(self, written: Mapping[str, int], failed: int) -> dict[str, Any]:
        """The block's counts file. written: of the Parquet file. failed: records that gave no document."""
        outcomes = {name: self.by["outcomes"][name] for name in OUTCOMES} | {"failed": failed}
        return {
            **written,
            "documents_in": sum(outcomes.values()),
            "characters_in": self.characters_in,
            **self.counters,
            "outcomes": outcomes,
            "digest_in": str(self.digest_in),
            "digest_out": str(self.digest_out),
        }


def add_counters(blocks: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, dict[str, int]]:
    """The counters of these names, summed over the counts of several blocks."""
    totals: dict[str, Counter[str]] = {name: Counter() for name in names}
    for block in blocks:
        for name, total in totals.items():
            total.update(block[name])
    return {name: dict(total) for name, total in totals.items()}
