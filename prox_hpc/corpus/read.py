"""Reading documents: from JSONL and Parquet files anywhere fsspec reaches, and from corpus artifacts.

`plan_files` looks at the files once, while launching, and tells the user what is wrong with them; what it returns is
plain data that becomes part of the step, so that every task sees the same files cut into the same blocks. `Source`
reads one block at a time as a stream. A bad record never stops a task: it is counted, with its reason, and the next
one is read. A file that is not what it was when the study was planned, or breaks off, does.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice, repeat
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from prox_hpc.config import Corpus
from prox_hpc.errors import UserError
from prox_hpc.task import Task

if TYPE_CHECKING:
    import pyarrow as pa

COMPRESSION = {".jsonl": None, ".jsonl.gz": "gzip", ".jsonl.zst": "zstd"}
SUFFIXES = (*COMPRESSION, ".parquet")

CHECK_BYTES = 64 << 20
"""Compressed files up to this size are decompressed whole while planning ..."""
CHECK_TOTAL_BYTES = 256 << 20
"""... as long as all of them together stay below this (a few seconds); of the others only the first records."""
CHECK_RECORDS = 100
"""Records looked at for the columns."""

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


class _Columns(NamedTuple):
    text: str
    id: str
    keep: str | None


class Source:
    """The documents of a corpus, block by block.

    failed: records that gave no document, by reason (documents read + failed = records of the files).
    repaired: documents that were passed on although something was amiss, by reason.
    Both count over all blocks read through this object.
    """

    def __init__(self, blocks: list[Block], columns: _Columns | None = None, sizes: dict[str, int] | None = None):
        """columns: of the user's files; None means blocks of a corpus artifact. sizes: expected bytes by path."""
        self.blocks = blocks
        self.failed: Counter[str] = Counter()
        self.repaired: Counter[str] = Counter()
        self._columns = columns
        self._sizes = sizes or {}

    @staticmethod
    def of_files(description: dict[str, Any]) -> "Source":
        """Of the description that `plan_files` made."""
        blocks: list[Block] = []
        for file in description["files"]:
            for start, stop in _ranges(file, description["limit"], description["block_documents"]):
                blocks.append(Block(len(blocks), file["path"], start, stop))
        columns = _Columns(description["text_column"], description["id_column"], description["keep_column"])
        return Source(blocks, columns, {file["path"]: file["size"] for file in description["files"]})

    @staticmethod
    def of_artifact(artifact: Path) -> "Source":
        """Of a corpus artifact: each of its Parquet files is a block."""
        paths = sorted((artifact / "blocks").glob("[0-9]*.parquet"))
        return Source([Block(int(path.stem), str(path)) for path in paths if path.stem.isdigit()])

    def read(self, block: Block) -> Iterator[Document]:
        """The documents of a block, in order, streamed; UserError when the file changed or breaks off."""
        if self._columns is None:
            yield from _artifact_documents(block)
            return
        import pyarrow as pa

        self._check_unchanged(block.path)
        records = self._parquet_records(block) if block.path.endswith(".parquet") else self._json_records(block)
        try:
            for row, record in records:
                if (document := self._document(block.path, row, record)) is not None:
                    yield document
        except (OSError, EOFError, pa.ArrowException) as error:
            reason = _one_line(error)
            raise UserError(f"{block.path}: cannot be read to its end ({reason}); replace the file") from error

    def read_stored(self, block: Block) -> Iterator[Stored]:
        """As `read`, but without decoding what is only passed on."""
        return _artifact_stored(block) if self._columns is None else map(Stored.of, self.read(block))

    def _check_unchanged(self, path: str) -> None:
        """UserError when the file has not the size it was planned with."""
        fs, inner = _file_system(path)
        try:
            size = fs.size(inner)
        except FileNotFoundError:
            raise UserError(f"{path}: the file is gone; launch the study again with files that stay") from None
        if size != self._sizes.get(path, size):
            raise UserError(f"{path}: the file changed since the study was launched; launch it again")

    def _json_records(self, block: Block) -> Iterator[tuple[int, dict[str, Any]]]:
        """Row number (of lines that are not blank) and record of each JSON line."""
        with _open_lines(block.path) as lines:
            filled = (line for line in lines if not line.isspace())
            for row, line in islice(enumerate(filled), block.start, block.stop):
                record = self._parse(line)
                if record is not None:
                    yield row, record

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        """The record of a JSON line; None, and counted, when it is none."""
        import orjson

        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            # orjson wants strict UTF-8 and JSON; the standard library also reads escaped lone surrogates and NaN
            text = line.decode("utf-8", "replace")
            try:
                record = json.loads(text)
            except (ValueError, RecursionError):
                self.failed["invalid JSON"] += 1
                return None
            if "\ufffd" in text and b"\xef\xbf\xbd" not in line:
                self.repaired["invalid UTF-8"] += 1
        if not isinstance(record, dict):
            self.failed["record is not an object"] += 1
            return None
        return record

    def _parquet_records(self, block: Block) -> Iterator[tuple[int, dict[str, Any]]]:
        """Row number and record of each row of the block."""
        import pyarrow.parquet as pq

        fs, path = _file_system(block.path)
        with fs.open(path, "rb") as stream:
            file = pq.ParquetFile(stream)
            stop = file.metadata.num_rows if block.stop is None else block.stop
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if first < stop and first + rows > block.start:
                    row = first
                    for batch in file.iter_batches(batch_size=256, row_groups=[group]):
                        low, high = max(block.start - row, 0), min(stop - row, batch.num_rows)
                        if low < high:
                            columns = [self._values(column.slice(low, high - low)) for column in batch.columns]
                            for i, values in enumerate(zip(*columns, strict=True)):
                                yield row + low + i, dict(zip(batch.schema.names, values, strict=True))
                        row += batch.num_rows
                first += rows

    def _values(self, column: Any) -> list[Any]:
        """A column as Python values; strings with invalid UTF-8, which Parquet does not forbid, are repaired."""
        import pyarrow as pa

        try:
            return column.to_pylist()
        except UnicodeDecodeError:
            lists = not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type)
            values = column.cast(pa.large_list(pa.large_binary()) if lists else pa.large_binary()).to_pylist()
            return [self._decode(value) for value in values]

    def _decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._decode(item) for item in value]
        if value is None:
            return None
        text = value.decode("utf-8", "replace")
        if "\ufffd" in text and b"\xef\xbf\xbd" not in value:
            self.repaired["invalid UTF-8"] += 1
        return text

    def _document(self, path: str, row: int, record: dict[str, Any]) -> Document | None:
        """The document of a record; None, and counted, when it has no text."""
        assert self._columns is not None
        text = self._text(record.pop(self._columns.text, None))
        if text is None:
            return None
        identity = record.pop(self._columns.id, None)
        program = None
        if self._columns.keep is not None:
            program = self._program(text, record.pop(self._columns.keep, None))
        name = f"{PurePosixPath(path).name}:{row}" if identity is None else _encodable(str(identity))
        return Document(name, text, record, None, program)

    def _text(self, value: Any) -> str | None:
        """Text of a string or of a list of lines; None, and counted, when it is neither."""
        if isinstance(value, bytes):
            value = self._decode(value)
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            self.failed["text is null or missing" if value is None else "text is not a string"] += 1
            return None
        text = _encodable(value)
        if text is not value:
            self.repaired["lone surrogate"] += 1
        return text

    def _program(self, text: str, keep: Any) -> str | None:
        """The gold program of line flags; None, and counted, when they do not fit the lines."""
        from prox_hpc.programs import program_from_keep

        if not isinstance(keep, list) or len(keep) != text.count("\n") + 1:
            self.repaired["keep flags do not match the lines"] += 1
            return None
        return program_from_keep([bool(flag) for flag in keep])


def open_source(task: Task) -> Source:
    """The corpus a task works on: its input artifact, or the files its configuration describes."""
    if "corpus" in task.step.inputs:
        return Source.of_artifact(task.input("corpus"))
    return Source.of_files(task.config["source"])


def task_blocks(blocks: list[Block], task: Task) -> list[Block]:
    """The blocks that are this task's to do: every n-th, which evens out files that grow or shrink by name."""
    return blocks[task.index :: task.step.tasks]


def plan_files(corpus: Corpus) -> dict[str, Any]:
    """List and check the files of `corpus.path`; returns the description that `Source.of_files` takes.

    Plain JSON data: {files: [{path, size, mtime, rows}], text_column, id_column, keep_column, limit, block_documents,
    name}; rows is None where they were not counted. UserError for a path with no usable files, for no record at all,
    for a missing text or keep column, and for a file that cannot be read.
    """
    files = [_describe(fs_path) for fs_path in _list_files(corpus)]
    left = CHECK_TOTAL_BYTES
    for file in files:
        whole = file["size"] <= min(CHECK_BYTES, left)
        try:
            file["rows"], columns = _look_into(file["path"], whole)
        except (OSError, EOFError, ValueError) as error:
            raise UserError(
                f"corpus.path={file['path']}: the file is corrupt or cut off ({_one_line(error)}); replace or remove it"
            ) from error
        left -= file["size"] if whole else 0
        _check_columns(corpus, file, columns)
    if all(file["rows"] == 0 for file in files):
        raise UserError(f"corpus.path={corpus.path}: no documents in {len(files)} file(s); give files with records")
    return {
        "name": corpus.name,
        "files": files,
        "text_column": corpus.text_column,
        "id_column": corpus.id_column,
        "keep_column": corpus.keep_column,
        "limit": corpus.limit,
        "block_documents": corpus.block_documents,
    }


def _list_files(corpus: Corpus) -> list[str]:
    """Paths or URLs of the files that `corpus.path` names, sorted."""
    value = corpus.path
    if not value:
        raise UserError("corpus.path is not set; give a file, a folder, a glob or an fsspec URL")
    try:
        fs, path = _file_system(value)
        if fs.isfile(path):
            found = [path]
        elif fs.isdir(path):
            found = [name for name in fs.find(path) if name.endswith(SUFFIXES)]
        else:
            found = [name for name in fs.glob(path) if fs.isfile(name)] if any(c in path for c in "*?[") else []
            if not found:
                raise UserError(f"corpus.path={value}: no such file or folder; check the path")
    except (OSError, ImportError, ValueError) as error:  # unknown protocol, its package missing, no permission
        raise UserError(f"corpus.path={value}: cannot be listed ({_one_line(error)}); check the path") from error
    known = ", ".join(SUFFIXES)
    if not found:
        raise UserError(f"corpus.path={value}: no file in this folder ends in {known}")
    for name in found:
        if not name.endswith(SUFFIXES):
            raise UserError(f"corpus.path={value}: {PurePosixPath(name).name} has an unknown suffix; known are {known}")
    local = "file" in fs.protocol
    return sorted(name if local else fs.unstrip_protocol(name) for name in found)


def _describe(path: str) -> dict[str, Any]:
    fs, inner = _file_system(path)
    try:
        mtime = fs.modified(inner).timestamp()
    except (NotImplementedError, KeyError):  # e.g. HTTP: the size alone tells the file then
        mtime = None
    return {"path": path, "size": fs.size(inner), "mtime": mtime, "rows": None}


def _look_into(path: str, whole: bool) -> tuple[int | None, set[str]]:
    """Number of records (None: not counted) and the columns of the first ones; raises when the file is broken."""
    if path.endswith(".parquet"):
        return _look_into_parquet(path, whole)
    columns: set[str] = set()
    source = Source([])
    with _open_lines(path) as lines:
        filled = (line for line in lines if not line.isspace())
        rows = 0
        for line in islice(filled, CHECK_RECORDS):
            rows += 1
            columns.update(source._parse(line) or {})
        if rows and not columns:
            raise ValueError(f"none of its first {rows} lines is a JSON object")
        if rows < CHECK_RECORDS:
            return rows, columns
        return (rows + sum(1 for _ in filled)) if whole else None, columns


def _look_into_parquet(path: str, whole: bool) -> tuple[int, set[str]]:
    import pyarrow.parquet as pq

    fs, inner = _file_system(path)
    with fs.open(inner, "rb") as stream:
        file = pq.ParquetFile(stream)
        for group in range(file.num_row_groups if whole else min(file.num_row_groups, 1)):
            for _ in file.iter_batches(batch_size=1024, row_groups=[group]):
                pass  # decoding is the check
        return file.metadata.num_rows, set(file.schema_arrow.names)


def _check_columns(corpus: Corpus, file: dict[str, Any], columns: set[str]) -> None:
    if file["rows"] == 0:
        return
    for key, name in (("text_column", corpus.text_column), ("keep_column", corpus.keep_column)):
        if name is not None and name not in columns:
            found = ", ".join(sorted(columns))
            raise UserError(f"corpus.{key}={name}: not in {file['path']}; its columns are {found}")


def _ranges(file: dict[str, Any], limit: int | None, size: int) -> Iterator[tuple[int, int | None]]:
    """Row ranges of the blocks of a file: JSONL has no index, so it is one block."""
    if not file["path"].endswith(".parquet"):
        yield 0, limit
        return
    rows = file["rows"] if limit is None else min(limit, file["rows"])
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


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
        utf8 = batch.column("text").cast(pa.large_binary()).to_pylist()
        yield from map(Stored, batch.column("id").to_pylist(), utf8, batch.column("metadata").to_pylist())


def _batches(block: Block, columns: tuple[str, ...]) -> Iterator["pa.RecordBatch"]:
    """Those of the columns that the block has, a row group at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(block.path) as file:
        names = [name for name in columns if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):  # one by one: a batch over several could hold very long documents
            yield from file.iter_batches(batch_size=ROW_GROUP, row_groups=[group], columns=names)


def _file_system(path: str) -> tuple[Any, str]:
    """The fsspec filesystem of a path or URL, and the path in it (absolute if local)."""
    import fsspec

    return fsspec.core.url_to_fs(path)


def _open_lines(path: str) -> IO[bytes]:
    """A JSONL file as a binary stream of lines, decompressed; OSError when it is cut off or corrupt."""
    import pyarrow as pa

    fs, inner = _file_system(path)
    compression = next(kind for suffix, kind in COMPRESSION.items() if path.endswith(suffix))
    stream = fs.open(inner, "rb")
    # Arrow's reader and not `zstandard`: it goes on over several frames, and it tells a stream that was cut off
    return BufferedReader(pa.CompressedInputStream(stream, compression), 1 << 20) if compression else stream


def _encodable(text: str) -> str:
    """`text`, with lone surrogates (from JSON escapes), which UTF-8 cannot hold, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
