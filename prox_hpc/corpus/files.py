"""The files of a corpus, listed, looked into and cut into blocks while a study is planned.

`plan_files` tells the user what is wrong with the files; what it returns is plain data that becomes part of the steps,
so that every task sees the same files cut into the same blocks. It must not take longer for large corpora: the files
are listed in one call, of Parquet only the footers are read, and a bounded number of bytes of a sample of the files is
read to see whether they are what they seem.
"""

import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from prox_hpc.corpus.read import (
    SUFFIXES,
    BadRecord,
    compression,
    file_system,
    is_local,
    one_line,
    open_lines,
    open_parquet,
    parse_line,
)
from prox_hpc.errors import UserError

if TYPE_CHECKING:
    from prox_hpc.config import Corpus

SAMPLE_FILES = 32
"""Files looked into: the first, the last and others evenly between them ..."""
SAMPLE_BYTES = 256 << 20
"""... and bytes, decompressed, read of all of them together: about a second."""
SAMPLE_RECORDS = 100
"""Records of a JSONL file looked at for the columns."""
THREADS, REMOTE_THREADS = 4, 32
"""Files looked into at the same time: on a remote filesystem nearly all of the time is waiting."""
MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "modified")
"""What fsspec's filesystems call a file's time of modification."""


class _Look(NamedTuple):
    """What was found in a file. groups: rows of each row group. rows: None if not counted. columns: as far as known."""

    rows: int | None
    columns: set[str]
    groups: list[int] | None = None


def plan_files(corpus: "Corpus") -> dict[str, Any]:
    """List and check the files of `corpus.path`; returns the description that `Source.of_files` takes.

    Plain JSON data: {files: [{path, size, mtime, stops}], folder, text_column, id_column, keep_column, drop_below,
    limit, block_documents, allow_failed_blocks, name}; stops: the row after the last of each block, None for the file's
    end.
    UserError for a path with no usable files, for no record at all, for a missing text or keep column, and for more
    files that cannot be read than `allow_failed_blocks`; fewer are warned of on stderr.
    """
    folder, files = _list_files(corpus)
    found = _look_into_all(files)
    broken = {index: look for index, look in found.items() if isinstance(look, str)}
    if broken:
        _tell_broken(corpus, {files[index]["path"]: reason for index, reason in broken.items()}, len(files))
    rows = []
    for index, file in enumerate(files):
        look = found.get(index)
        if isinstance(look, _Look):
            _check_columns(corpus, file["path"], look)
            rows.append(look.rows)
        groups = look.groups if isinstance(look, _Look) else None
        file["stops"] = [corpus.limit] if groups is None else _stops(groups, corpus.block_documents, corpus.limit)
    if len(rows) == len(files) and not any(number != 0 for number in rows):
        raise UserError(f"corpus.path={corpus.path}: no documents in {len(files)} file(s); give files with records")
    return {
        "name": corpus.name,
        "folder": folder,
        "files": files,
        "text_column": corpus.text_column,
        "id_column": corpus.id_column,
        "keep_column": corpus.keep_column,
        "drop_below": corpus.drop_below,
        "limit": corpus.limit,
        "block_documents": corpus.block_documents,
        "allow_failed_blocks": corpus.allow_failed_blocks,
    }


def _list_files(corpus: "Corpus") -> tuple[str, list[dict[str, Any]]]:
    """The folder that ids leave out, and {path, size, mtime} of the files that `corpus.path` names, sorted by path."""
    value = corpus.path
    if not value:
        raise UserError("corpus.path is not set; give a file, a folder, a glob or an fsspec URL")
    try:
        fs, path = file_system(value)
        if fs.isfile(path):
            found, base = {path: fs.info(path)}, path.rpartition("/")[0]
        elif fs.isdir(path):
            # one listing: a call for each of 10,000 files takes minutes on a remote filesystem
            found = {name: info for name, info in fs.find(path, detail=True).items() if name.endswith(SUFFIXES)}
            base = path
        else:
            found = _glob(fs, path)
            base = re.split(r"[*?[]", path)[0].rpartition("/")[0]
            if not found:
                raise UserError(f"corpus.path={value}: no such file or folder; check the path")
        files = [_describe(fs, name, info) for name, info in sorted(found.items())]
    except (OSError, ImportError, ValueError) as error:  # unknown protocol, its package missing, no permission
        raise UserError(f"corpus.path={value}: cannot be listed ({one_line(error)}); check the path") from error
    known = ", ".join(SUFFIXES)
    if not files:
        raise UserError(f"corpus.path={value}: no file in this folder ends in {known}")
    for name in found:
        if not name.endswith(SUFFIXES):
            raise UserError(f"corpus.path={value}: {PurePosixPath(name).name} has an unknown suffix; known are {known}")
    return _address(fs, base).rstrip("/") + "/", files


def _glob(fs: Any, path: str) -> dict[str, Any]:
    if not any(character in path for character in "*?["):
        return {}
    return {name: info for name, info in fs.glob(path, detail=True).items() if info["type"] != "directory"}


def _address(fs: Any, name: str) -> str:
    """A file's path if it is local, else its URL."""
    return name if is_local(fs) else str(fs.unstrip_protocol(name))


def _describe(fs: Any, name: str, info: dict[str, Any]) -> dict[str, Any]:
    if info.get("islink"):  # a listing tells of the link itself
        with suppress(FileNotFoundError):  # found out when it is looked into
            info = fs.info(name)
    modified = next((info[key] for key in MODIFIED if info.get(key) is not None), None)  # e.g. HTTP has none
    if isinstance(modified, datetime):
        modified = modified.timestamp()
    size = info.get("size")
    return {"path": _address(fs, name), "size": fs.size(name) if size is None else size, "mtime": modified}


def _look_into_all(files: list[dict[str, Any]]) -> dict[int, _Look | str]:
    """What was found in the files, by their number, or why one cannot be read; not all JSONL files are looked into."""
    import pyarrow as pa

    last, parts = len(files) - 1, max(1, min(SAMPLE_FILES, len(files)) - 1)
    sample = {last * part // parts for part in range(parts + 1)}
    share = SAMPLE_BYTES // len(sample)

    def look_into(index: int) -> _Look | str:
        file = files[index]
        budget = share if index in sample or not file["size"] else 0
        try:
            if file["path"].endswith(".parquet"):
                return _look_into_parquet(file["path"], budget)
            if compression(file["path"]) and not file["size"]:
                return "it is empty, even without a header"
            return _look_into_lines(file["path"], budget)
        except (OSError, EOFError, ValueError, pa.ArrowException) as error:
            return one_line(error)

    wanted = [i for i, file in enumerate(files) if i in sample or file["path"].endswith(".parquet") or not file["size"]]
    threads = THREADS if is_local(file_system(files[0]["path"])[0]) else REMOTE_THREADS
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(wanted, pool.map(look_into, wanted), strict=True))


def _look_into_lines(path: str, budget: int) -> _Look:
    """Read at most `budget` decompressed bytes of a JSONL file; ValueError when they hold no record at all."""
    columns: set[str] = set()
    rows = parsed = 0
    with open_lines(path) as lines:
        while budget > 0 and (line := lines.readline(budget)):
            budget -= len(line)
            if line.isspace():
                continue
            rows += 1
            if parsed < SAMPLE_RECORDS and (budget > 0 or line.endswith(b"\n")):
                parsed += 1
                columns.update(_columns(line))
    if parsed and not columns:
        raise ValueError(f"none of its first {parsed} lines is a JSON object")
    return _Look(rows if budget > 0 else None, columns)


def _columns(line: bytes) -> Iterable[str]:
    try:
        return parse_line(line)[0]
    except BadRecord:
        return ()


def _look_into_parquet(path: str, budget: int) -> _Look:
    """Read the footer, and decode about `budget` bytes."""
    with open_parquet(path) as file:
        about = file.metadata
        groups = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
        if budget:
            for batch in file.iter_batches(batch_size=256):
                budget -= batch.nbytes  # decoding is the check
                if budget <= 0:
                    break
        return _Look(about.num_rows, set(file.schema_arrow.names), groups)


def _tell_broken(corpus: "Corpus", broken: dict[str, str], files: int) -> None:
    """UserError when more files are broken than may be, else a warning."""
    path, reason = next(iter(broken.items()))
    more = f"; so are {len(broken) - 1} more of {files}" if len(broken) > 1 else ""
    told = f"corpus.path={path}: the file is corrupt or cut off ({reason}){more}"
    if len(broken) == files:
        raise UserError(f"{told}; replace or remove it")
    if len(broken) > corpus.allow_failed_blocks:
        raise UserError(f"{told}; replace or remove it, or go on without: corpus.allow_failed_blocks={len(broken)}")
    print(f"warning: {told}; its blocks will fail, {corpus.allow_failed_blocks} may", file=sys.stderr)


def _check_columns(corpus: "Corpus", path: str, look: _Look) -> None:
    """UserError when the file lacks a column that the configuration names."""
    if not look.columns:  # no records, or none looked at
        return
    for key, name in (("text_column", corpus.text_column), ("keep_column", corpus.keep_column)):
        if name is not None and name not in look.columns and look.rows != 0:
            found = ", ".join(sorted(look.columns))
            raise UserError(f"corpus.{key}={name}: not in {path}; its columns are {found}")


def _stops(groups: list[int], size: int, limit: int | None) -> list[int]:
    """The row after the last of each block of at most `size` rows, at the end of a row group where possible.

    A task decodes every row group that its block touches: small ones go together into a block, and only those larger
    than a block are cut, into equal parts.
    """
    stops: list[int] = []
    start = end = 0
    for rows in groups:
        if start < end and end + rows - start > size:
            stops.append(end)
            start = end
        if rows > size:
            parts = -(-rows // size)
            stops += [end + rows * part // parts for part in range(1, parts + 1)]
            start = end + rows
        end += rows
    if start < end:
        stops.append(end)
    return stops if limit is None else sorted({min(stop, limit) for stop in stops})
