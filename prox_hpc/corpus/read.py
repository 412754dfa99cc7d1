"""Reading documents: from JSONL and Parquet files anywhere fsspec reaches, and from corpus artifacts.

`Source` reads one block at a time as a stream. A bad record never stops a task: it is counted, with its row and reason,
and the next one is read. A file that is gone, is not what it was when the study was planned, or breaks off fails its
blocks (`UnreadableBlock`, see `prox_hpc.corpus.blocks`), since what could still be read of it would be an accident.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice, repeat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from prox_hpc.errors import UserError
from prox_hpc.task import Task

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

COMPRESSION = {".jsonl": None, ".jsonl.gz": "gzip", ".json.gz": "gzip", ".jsonl.zst": "zstd"}
SUFFIXES = (*COMPRESSION, ".parquet")

EXAMPLES = 20
"""Failed records of a block that are kept as examples."""
BUFFER_BYTES = 1 << 20
"""Read at a time of each column of a local Parquet file, so that a row group of any size can be read ..."""
REMOTE_BUFFER_BYTES = 8 << 20
"""... and of a remote one, where every read is a request."""

ROW_GROUP = 1000
"""Documents per Parquet row group of an artifact, and read or written at a time: some megabytes of ordinary pages."""
ROW_GROUP_BYTES = 32 << 20
"""A row group of long documents ends with the document that reaches this."""


class Document(NamedTuple):
    """One document; a tuple because millions are made. The gold fields are None where the truth is not known.

    gold_drop: whether the document is junk. gold_program: chunk-stage program over the whole document (global line
    numbers) that makes the clean text.
    """

    id: str
    text: str
    metadata: dict[str, Any]
    gold_drop: bool | None = None
    gold_program: str | None = None


class Stored(NamedTuple):
    """A document as an artifact stores it, for steps that pass most of it on: nothing is decoded or parsed.

    utf8: the text. metadata: JSON.
    """

    id: str
    utf8: bytes
    metadata: str

    @staticmethod
    def of(document: Document) -> "Stored":
        # default=str: Parquet corpora hold dates and decimals, which JSON lacks
        metadata = json.dumps(document.metadata, default=str)
        return Stored(document.id, document.text.encode(), metadata)


@dataclass(frozen=True)
class Block:
    """The smallest unit read and published: rows `start` to `stop` (excluded; None = to the end) of a file."""

    index: int
    path: str
    start: int = 0
    stop: int | None = None


class UnreadableBlock(UserError):
    """A file that cannot be read to its end, so that its block fails.

    row: the first one that could not be read. reason: why, without the path.
    """

    def __init__(self, path: str, reason: str, row: int = 0):
        super().__init__(path, reason, row)  # all of them: exceptions travel between processes by their arguments
        self.path, self.reason, self.row = path, reason, row

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; restore the file, or replace it and launch again"


class BadRecord(Exception):
    """A record that gives no document; the message is the reason under which it is counted."""


class _Columns(NamedTuple):
    text: str
    id: str
    keep: str | None
    drop_below: float | None = None


class Source:
    """The documents of a corpus, block by block.

    failed: records that gave no document, by reason (documents read + failed = records of the files).
    repaired: documents that were passed on although something was amiss, by reason.
    Both count over all blocks read through this object.
    failures: of the block read last, the first failed records: {"path", "row", "reason"}; a row of JSONL is the number
    of its line, from 0.
    allowed: blocks that may be unreadable before a step that reads them fails.
    """

    def __init__(
        self,
        blocks: list[Block],
        columns: _Columns | None = None,
        sizes: dict[str, int] | None = None,
        folder: str = "",
        allowed: int = 0,
    ):
        """columns: of the user's files; None means blocks of a corpus artifact. sizes: expected bytes by path.

        folder: what ids leave out of the paths.
        """
        self.blocks = blocks
        self.failed: Counter[str] = Counter()
        self.repaired: Counter[str] = Counter()
        self.failures: list[dict[str, Any]] = []
        self.allowed = allowed
        self._columns = columns
        self._sizes = sizes or {}
        self._folder = folder

    @staticmethod
    def of_files(description: dict[str, Any]) -> "Source":
        """Of the description that `prox_hpc.corpus.files.plan_files` made; UserError when an older version did."""
        if "drop_below" not in description:
            raise UserError(f"corpus {description['name']}: was planned by an older version; launch the study again")
        blocks: list[Block] = []
        for file in description["files"]:
            start = 0
            for stop in file["stops"]:
                blocks.append(Block(len(blocks), file["path"], start, stop))
                start = stop
        columns = _Columns(*(description[key] for key in ("text_column", "id_column", "keep_column", "drop_below")))
        sizes = {file["path"]: file["size"] for file in description["files"]}
        return Source(blocks, columns, sizes, description["folder"], description["allow_failed_blocks"])

    @staticmethod
    def of_artifact(artifact: Path) -> "Source":
        """Of a corpus artifact: each of its Parquet files is a block."""
        paths = sorted((artifact / "blocks").glob("[0-9]*.parquet"))
        return Source([Block(int(path.stem), str(path)) for path in paths if path.stem.isdigit()])

    def apart(self) -> "Source":
        """The same documents with counts of their own, for a block that is read while others are."""
        return Source(self.blocks, self._columns, self._sizes, self._folder, self.allowed)

    def read(self, block: Block) -> Iterator[Document]:
        """The documents of a block, in order, streamed; UnreadableBlock when the file changed or breaks off."""
        import pyarrow as pa

        self.failures = []
        read, row = 0, block.start - 1
        try:
            if self._columns is None:
                for document in _artifact_documents(block):
                    read += 1
                    yield document
                return
            self._check_unchanged(block.path)
            records = self._parquet_records(block) if block.path.endswith(".parquet") else self._json_records(block)
            for row, record in records:
                read += 1
                try:
                    document = self._document(block.path, row, record)
                except BadRecord as bad:
                    self._lose(block.path, row, bad)
                else:
                    yield document
        except (OSError, EOFError, pa.ArrowException) as error:
            raise _broken(block, read, max(row + 1, read), error) from error

    def read_stored(self, block: Block) -> Iterator[Stored]:
        """As `read`, but without decoding what is only passed on."""
        return self._read_stored(block) if self._columns is None else map(Stored.of, self.read(block))

    def _read_stored(self, block: Block) -> Iterator[Stored]:
        import pyarrow as pa

        read = 0
        try:
            for document in _artifact_stored(block):
                read += 1
                yield document
        except (OSError, pa.ArrowException) as error:
            raise _broken(block, read, read, error) from error

    def _lose(self, path: str, row: int, bad: BadRecord) -> None:
        reason = str(bad)
        self.failed[reason] += 1
        if len(self.failures) < EXAMPLES:
            self.failures.append({"path": path, "row": row, "reason": reason})

    def _check_unchanged(self, path: str) -> None:
        """UnreadableBlock when the file has not the size it was planned with."""
        fs, inner = file_system(path)
        try:
            size = fs.size(inner)
        except FileNotFoundError:
            raise UnreadableBlock(path, "the file is gone") from None
        expected = self._sizes.get(path, size)
        if size != expected:
            raise UnreadableBlock(
                path, f"the file changed since the study was launched ({size} bytes, it had {expected})"
            )

    def _json_records(self, block: Block) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line number and record of each JSON line; what is no record is counted."""
        objects = lines_read = 0
        with open_lines(block.path) as lines:
            filled = ((row, line) for row, line in enumerate(lines) if not line.isspace())
            for row, line in islice(filled, block.start, block.stop):
                lines_read += 1
                try:
                    record = self._parse(line)
                except BadRecord as bad:
                    self._lose(block.path, row, bad)
                else:
                    objects += 1
                    yield row, record
        if lines_read and not objects and block.stop is None:  # not a broken record but another kind of file
            raise UnreadableBlock(block.path, f"none of its {lines_read} lines is a JSON object")

    def _parse(self, line: bytes) -> dict[str, Any]:
        record, repaired = parse_line(line)
        if repaired:
            self.repaired["invalid UTF-8"] += 1
        return record

    def _parquet_records(self, block: Block) -> Iterator[tuple[int, dict[str, Any]]]:
        """Row number and record of each row of the block; of its row groups only, a batch at a time."""
        with open_parquet(block.path) as file:
            stop = file.metadata.num_rows if block.stop is None else block.stop
            first = 0
            for group in range(file.num_row_groups):
                about = file.metadata.row_group(group)
                if first < stop and first + about.num_rows > block.start:
                    row = first
                    for batch in file.iter_batches(batch_size=_batch_rows(about), row_groups=[group]):
                        low, high = max(block.start - row, 0), min(stop - row, batch.num_rows)
                        if low < high:
                            columns = [self._values(column.slice(low, high - low)) for column in batch.columns]
                            for i, values in enumerate(zip(*columns, strict=True)):
                                yield row + low + i, dict(zip(batch.schema.names, values, strict=True))
                        row += batch.num_rows
                        if row >= stop:
                            break
                first += about.num_rows

    def _values(self, column: Any) -> list[Any]:
        """A column as Python values; where Parquet holds more than Python does, the value is repaired."""
        import pyarrow as pa

        try:
            values: list[Any] = column.to_pylist()
            return values
        except (ValueError, OverflowError, pa.ArrowException):
            return [self._value(scalar) for scalar in column]

    def _value(self, scalar: Any) -> Any:
        """Strings with invalid UTF-8, which Parquet does not forbid, are decoded; dates beyond Python's become text."""
        import pyarrow as pa

        try:
            return scalar.as_py()
        except (ValueError, OverflowError, pa.ArrowException):
            if isinstance(scalar, pa.StructScalar):
                return {name: self._value(scalar[name]) for name in scalar}
            if isinstance(scalar, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
                return self._values(scalar.values)
            if isinstance(scalar, pa.BinaryScalar):
                return self._decode(scalar.as_buffer().to_pybytes())
            self.repaired["value beyond Python's range"] += 1
            return scalar.cast(pa.string()).as_py()

    def _decode(self, utf8: bytes) -> str:
        text = utf8.decode("utf-8", "replace")
        if "\ufffd" in text and b"\xef\xbf\xbd" not in utf8:
            self.repaired["invalid UTF-8"] += 1
        return text

    def _document(self, path: str, row: int, record: dict[str, Any]) -> Document:
        """The document of a record; BadRecord when it has no text."""
        assert self._columns is not None
        text = self._text(record.pop(self._columns.text, None))
        identity = record.pop(self._columns.id, None)
        drop, program = None, None
        if self._columns.keep is not None:
            drop, program = self._gold(text, record.pop(self._columns.keep, None))
        name = f"{path.removeprefix(self._folder)}:{row}" if identity is None else _encodable(str(identity))
        return Document(name, text, record, drop, program)

    def _text(self, value: Any) -> str:
        """Text of a string or of a list of lines; BadRecord when it is neither."""
        if isinstance(value, bytes):
            value = self._decode(value)
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            raise BadRecord("text is null or missing" if value is None else "text is not a string")
        text = _encodable(value)
        if text is not value:
            self.repaired["lone surrogate"] += 1
        return text

    def _gold(self, text: str, keep: Any) -> tuple[bool | None, str | None]:
        """The gold verdict and program of line flags; None, and counted, when they do not fit the lines.

        The verdict (None without `drop_below`) is "junk" where less than that share of the words is main content, and
        where there are no words.
        """
        from prox_hpc.programs import program_from_keep

        assert self._columns is not None
        lines = text.split("\n")
        if not isinstance(keep, list) or len(keep) != len(lines):
            self.repaired["keep flags do not match the lines"] += 1
            return None, None
        program = program_from_keep([bool(flag) for flag in keep])
        if self._columns.drop_below is None:
            return None, program
        words = [len(line.split()) for line in lines]
        main = sum(number for number, flag in zip(words, keep, strict=True) if flag)
        return main < self._columns.drop_below * sum(words) or not main, program


def open_source(task: Task) -> Source:
    """The corpus a task works on: its input artifact, or the files its configuration describes."""
    if "corpus" in task.step.inputs:
        return Source.of_artifact(task.input("corpus"))
    return Source.of_files(task.config["source"])


def task_blocks(blocks: list[Block], task: Task) -> list[Block]:
    """The blocks that are this task's to do: every n-th, which evens out files that grow or shrink by name."""
    return blocks[task.index :: task.step.tasks]


def _artifact_documents(block: Block) -> Iterator[Document]:
    unknown = repeat(None)
    for batch in _batches(block, ("id", "text", "metadata", "drop", "program")):
        # by column: less work for each document than rows as dicts
        columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
        gold = columns.get("drop", unknown), columns.get("program", unknown)
        yield from map(Document, columns["id"], columns["text"], map(json.loads, columns["metadata"]), *gold)


def _artifact_stored(block: Block) -> Iterator[Stored]:
    import pyarrow as pa

    for batch in _batches(block, ("id", "text", "metadata")):
        utf8 = batch.column("text").view(pa.large_binary()).to_pylist()
        yield from map(Stored, batch.column("id").to_pylist(), utf8, batch.column("metadata").to_pylist())


def _batches(block: Block, columns: tuple[str, ...]) -> Iterator["pa.RecordBatch"]:
    """Those of the columns that the block has, a row group at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(block.path, page_checksum_verification=True) as file:
        names = [name for name in columns if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):  # one by one: a batch over several could hold very long documents
            yield from file.iter_batches(batch_size=ROW_GROUP, row_groups=[group], columns=names)


def parse_line(line: bytes) -> tuple[dict[str, Any], bool]:
    """The record of a JSON line, and whether invalid UTF-8 in it was replaced; BadRecord when it is none."""
    import orjson

    repaired = False
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        # orjson wants strict UTF-8 and JSON; the standard library also reads escaped lone surrogates and NaN
        text = line.decode("utf-8", "replace")
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            raise BadRecord("invalid JSON") from None
        repaired = "\ufffd" in text and b"\xef\xbf\xbd" not in line
    if not isinstance(record, dict):
        raise BadRecord("record is not an object")
    return record, repaired


def file_system(path: str) -> tuple[Any, str]:
    """The fsspec filesystem of a path or URL, and the path in it (absolute if local)."""
    import fsspec

    return fsspec.core.url_to_fs(path)


def is_local(fs: Any) -> bool:
    return "file" in fs.protocol


def compression(path: str) -> str | None:
    """How a JSONL file is compressed, by its name."""
    return next(kind for suffix, kind in COMPRESSION.items() if path.endswith(suffix))


def open_lines(path: str) -> IO[bytes]:
    """A JSONL file as a binary stream of lines, decompressed; OSError when it is cut off or corrupt."""
    import pyarrow as pa

    fs, inner = file_system(path)
    kind = compression(path)
    stream = fs.open(inner, "rb")
    # Arrow's reader and not `zstandard`: it goes on over several frames, and it tells a stream that was cut off
    return BufferedReader(pa.CompressedInputStream(stream, kind), 1 << 20) if kind else stream


@contextmanager
def open_parquet(path: str) -> Iterator["pq.ParquetFile"]:
    """A Parquet file whose columns are read some bytes at a time, and checked where the file has checksums."""
    import pyarrow.parquet as pq

    fs, inner = file_system(path)
    local = is_local(fs)
    with ExitStack() as stack:
        # a local one by its path: Arrow then reads it without Python
        source = inner if local else stack.enter_context(fs.open(inner, "rb"))
        buffer = BUFFER_BYTES if local else REMOTE_BUFFER_BYTES
        yield stack.enter_context(
            pq.ParquetFile(source, pre_buffer=False, buffer_size=buffer, page_checksum_verification=True)
        )


def _batch_rows(group: "pq.RowGroupMetaData") -> int:
    """Rows decoded at a time: fewer where they are long."""
    return max(1, min(256, ROW_GROUP_BYTES * group.num_rows // max(1, group.total_byte_size)))


def _broken(block: Block, read: int, row: int, error: BaseException) -> UnreadableBlock:
    reason = f"cannot be read to its end, only {read} records of this block can ({one_line(error)})"
    return UnreadableBlock(block.path, reason, row)


def _encodable(text: str) -> str:
    """`text`, with lone surrogates (from JSON escapes), which UTF-8 cannot hold, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
