"""Writing files so that a reader sees all of a file or none of it, whoever dies when.

Every product of a task goes through here: write a temporary sibling, fsync, then give it its name. A file gets its
name by `os.link`, which fails when the name is taken, so of two tasks computing the same block the first wins and the
other's work is discarded; a directory gets its name by `os.rename` onto an absent name. Status files, which are
rewritten all the time and whose loss costs nothing, are replaced instead.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def temporary(path: Path) -> Path:
    """A fresh name beside `path`, on the same filesystem, that no reader takes for a product."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def _sync(path: Path) -> None:
    """Force a file's (or a directory's) content to the disk; some filesystems refuse this for directories."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def publish_file(path: Path, write: Callable[[Path], object]) -> bool:
    """Let `write(temporary)` make a file and give it the name `path`; False when another task was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary(path)
    try:
        write(draft)
        return publish_draft(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def publish_draft(draft: Path, path: Path) -> bool:
    """Give a finished temporary file beside it the name `path`; False when another task was first. The draft stays."""
    try:
        _sync(draft)
        os.link(draft, path)
    except FileExistsError:
        return False
    except FileNotFoundError:
        if path.exists():  # others were first and sealed the step, with which drafts are cleared away
            return False
        raise
    _sync(path.parent)
    return True


def publish_directory(path: Path, fill: Callable[[Path], None]) -> bool:
    """Let `fill(temporary)` fill a new directory and give it the name `path`; False when another task was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary(path)
    draft.mkdir()
    try:
        fill(draft)
        for file in draft.rglob("*"):
            _sync(file)
        if path.exists():
            return False
        os.rename(draft, path)
        _sync(path.parent)
        return True
    except OSError:
        if path.exists():  # rename onto a directory somebody else published in between
            return False
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def publish_json(path: Path, value: Any) -> bool:
    """Publish `value` as indented JSON; False when another task was first."""
    return publish_file(
        path, lambda draft: draft.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n") and None
    )


def replace_json(path: Path, value: Any) -> None:
    """Rewrite a status file in one stroke (no fsync: losing the newest status is harmless)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary(path)
    draft.write_text(json.dumps(value))
    os.replace(draft, path)
