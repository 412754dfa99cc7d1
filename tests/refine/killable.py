"""Starts refine tasks that die or halt at a chosen write: `python killable.py MODEL`, asked on stdin, see `main`.

A task needs seven processor seconds to import what it needs, and the tests start a hundred; so this process imports
once and forks for each. What a child then does is `python -m prox_hpc.worker STEP INDEX`, with the functions by which
files come into being wrapped: each call is a point before and a point after at which it may send itself a signal.

A point is called by its function and its file, with digits and random names left out: `link blocks/N.json`.
"""

import functools
import gc
import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp  # noqa: F401  (imported here for the children)
import pyarrow.parquet as pq

from prox_hpc.cluster import worker
from prox_hpc.corpus import write
from prox_hpc.refine import blocks, scores, task, tokens  # noqa: F401

ROWS = 16
"""Documents of a row group, so that blocks of some dozens of documents are written in several pieces."""
SYSTEM_CALLS = ("link", "rename", "replace", "fsync", "unlink")


def main() -> None:
    """{"step", "index", "log", "at": [point, after, signal] or null, "record": file or null} -> pid of a new child.

    record: where it writes down its points. {"wait": pid} -> its exit status, negative when a signal ended it.
    """
    for module in (write, blocks, scores):
        module.ROW_GROUP = ROWS  # type: ignore[attr-defined]
    tokens.load(sys.argv[1])
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if not pid:
            _child(**asked)
        print(pid, flush=True)
    os._exit(0)  # torch takes seconds to go, and complains


def _child(step: str, index: int, log: str, at: list[Any] | None, record: str | None) -> None:
    status = 1
    try:
        with open(log, "ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        points = Points(at, record)
        for name in SYSTEM_CALLS:
            points.wrap(os, name, lambda *of: of[-1])
        points.wrap(Path, "write_text", lambda path, *_: path)
        for name in ("write_table", "close"):
            points.wrap(pq.ParquetWriter, name, lambda writer, *_: writer.where)
        status = worker.main([step, str(index)])
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # taking down what the parent has imported would be longer than the task


class Points:
    """The points of this process. at: [point, whether after it, signal]; sent once, the first time it is reached."""

    def __init__(self, at: list[Any] | None, record: str | None):
        self.at, self.record = at, record
        self.lock = threading.Lock()

    def wrap(self, holder: Any, name: str, path_of: Callable[..., Any]) -> None:
        original = getattr(holder, name)

        @functools.wraps(original)
        def wrapped(*arguments: Any, **more: Any) -> Any:
            point = self.named(name, path_of(*arguments))
            self.reached(point, after=False)
            result = original(*arguments, **more)
            self.reached(point, after=True)
            return result

        setattr(holder, name, wrapped)

    def named(self, function: str, path: Any) -> str:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        short = re.sub(r"^.*?/[a-z]+/[^/]*-[0-9a-f]{12}(/|$)", "", str(path))
        short = re.sub(r"(^|/)\.(.*)\.[0-9a-f]{12}\.tmp$", r"\1\2 (draft)", short)
        return f"{function} {re.sub('[0-9]+', 'N', short)}"

    def reached(self, point: str, after: bool) -> None:
        if self.record is not None:
            with self.lock, open(self.record, "a") as file:
                file.write(json.dumps([point, after]) + "\n")
        with self.lock:
            if self.at is None or self.at[:2] != [point, after]:
                return
            number, self.at = self.at[2], None
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
