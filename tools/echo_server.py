"""Answers like an SGLang server, at once and without a model: for tests, and for measuring everything but the server.

Set `serve.command` to `[python, tools/echo_server.py, OPTIONS]`; SGLang's own arguments follow and only the port and
the key's file are read. Answers depend on the token ids alone: a score keeps a given share of the prompts, a
continuation is one of the given programs. A marked token id makes it die, hang, fail, refuse or hang up, as a real
server may. `GET /stats` tells what it has seen and its own CPU seconds; SIGTERM prints the same to stderr.
"""

import argparse
import asyncio
import math
import os
import signal
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

PROGRAMS = ("keep_chunk()", "remove_lines(0, 0)")
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Internal Server Error"}


def uniform(ids: Sequence[int]) -> float:
    """A number in [0, 1) made of the ids (their sum, count, first and last: cheap for thousands)."""
    return zlib.crc32(b"%d %d %d %d" % (sum(ids), len(ids), ids[0], ids[-1])) / (1 << 32)


def score(ids: Sequence[int], kept: float) -> tuple[float, float]:
    """Log-probabilities of keep and drop; the first is the larger one for the share `kept` of all prompts."""
    value = 8 * (kept - uniform(ids))
    return -math.log1p(math.exp(-value)), -math.log1p(math.exp(value))


def program(ids: Sequence[int], programs: Sequence[str] = PROGRAMS) -> str:
    """One of the programs."""
    return programs[int(uniform(ids) * len(programs))]


class Echo:
    """What the server does and what it has seen. calls: the prompts' lengths, one list per call (`--record`)."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        text = Path(options.config).read_text()
        self.key = text.partition('"')[2].partition('"')[0].encode()
        self.calls: list[list[int]] = []
        self.requests = self.tokens = self.in_flight = self.most = 0
        self.hung_up = False
        self.started = time.monotonic()

    def stats(self) -> dict[str, Any]:
        return {
            "cpu_s": time.process_time(),
            "wall_s": time.monotonic() - self.started,
            "requests": self.requests,
            "tokens": self.tokens,
            "most_in_flight": self.most,
            "calls": self.calls,
            "cores": sorted(os.sched_getaffinity(0)),
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }

    def answers(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """One answer per prompt, as SGLang gives them."""
        options = self.options
        found = []
        for number, ids in enumerate(body["input_ids"]):
            meta: dict[str, Any] = {"finish_reason": {"type": "stop"}, "prompt_tokens": len(ids)}
            text = ""
            if body.get("token_ids_logprob"):
                values = score(ids, options.kept)
                pairs = zip(values, body["token_ids_logprob"], strict=True)
                meta |= {"completion_tokens": 1, "output_token_ids_logprobs": [[[v, t, None] for v, t in pairs]]}
            else:
                text = program(ids, options.programs)
                meta["completion_tokens"] = 1 + len(text) // 4
            found.append({"text": text, "meta_info": meta, "index": number})
        return found


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: request after request, each with a Content-Length."""

    def __init__(self, echo: Echo):
        self.echo = echo
        self.buffer = bytearray()
        self.body_start = 0
        self.body_end = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            if not self.body_end:
                end = self.buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                _, found, length = bytes(self.buffer[:end]).lower().partition(b"content-length:")
                self.body_start = end + 4
                self.body_end = end + 4 + (int(length.split(b"\r\n", 1)[0]) if found else 0)
            if len(self.buffer) < self.body_end:
                return
            head = bytes(self.buffer[: self.body_start])
            body = bytes(self.buffer[self.body_start : self.body_end])
            del self.buffer[: self.body_end]
            self.body_end = 0
            self.respond(head, body)

    def respond(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if b"Bearer " + self.echo.key not in head:
            self.send(401, b"{}")
        elif path == b"/generate":
            self.generate(orjson.loads(body))
        elif path == b"/stats":
            self.send(200, orjson.dumps(self.echo.stats()))
        elif path == b"/server_info":
            self.send(200, b'{"version": "echo"}')
        else:
            self.send(200 if path == b"/health" else 404, b"{}")

    def generate(self, body: dict[str, Any]) -> None:
        echo, options = self.echo, self.echo.options
        if body["input_ids"] and isinstance(body["input_ids"][0], int):  # one prompt, the first request of a start
            self.send(200, orjson.dumps(echo.answers({**body, "input_ids": [body["input_ids"]]})[0]))
            return
        lengths = [len(ids) for ids in body["input_ids"]]
        if options.record:
            echo.calls.append(lengths)
        echo.requests += len(lengths)
        echo.tokens += sum(lengths)
        echo.in_flight += len(lengths)
        echo.most = max(echo.most, echo.in_flight)

        def marked(token: int | None) -> bool:
            return token is not None and any(token in ids for ids in body["input_ids"])

        if marked(options.die_on):
            os.kill(os.getpid(), signal.SIGKILL)
        if marked(options.hang_on):
            return
        if marked(options.hang_up_on) and not echo.hung_up:
            echo.hung_up = True
            self.transport.close()
            return
        if options.delay:
            asyncio.get_running_loop().call_later(options.delay, self.answer, body, marked)
        else:
            self.answer(body, marked)

    def answer(self, body: dict[str, Any], marked: Any) -> None:
        self.echo.in_flight -= len(body["input_ids"])
        if marked(self.echo.options.refuse_on) or marked(self.echo.options.fail_on):
            refused = marked(self.echo.options.refuse_on)
            self.send(400 if refused else 500, b'{"error": {"message": "the marked token"}}')
            return
        answers = self.echo.answers(body)
        if body.get("stream"):
            events = [b"data: " + orjson.dumps(answer) + b"\n\n" for answer in answers]
            self.send(200, b"".join([*events, b"data: [DONE]\n\n"]))
        else:
            self.send(200, orjson.dumps(answers))

    def send(self, status: int, body: bytes) -> None:
        line = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
        self.transport.write(f"{line}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Our options; SGLang's others are passed over."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--kept", type=float, default=0.5, help="share of prompts whose score says keep")
    parser.add_argument("--programs", action="append", help="a possible answer; may be given several times")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--record", action="store_true", help="note the lengths of all prompts, by call")
    for what in ("die", "hang", "fail", "refuse", "hang-up"):
        parser.add_argument(f"--{what}-on", type=int, metavar="TOKEN", help=f"{what} when a prompt holds this token id")
    options, _ = parser.parse_known_args(argv)
    options.programs = options.programs or PROGRAMS
    return options


async def serve(echo: Echo) -> None:
    """Listen until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await loop.create_server(lambda: Connection(echo), "127.0.0.1", echo.options.port)
    await stop.wait()
    print(orjson.dumps(echo.stats()).decode(), file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(serve(Echo(arguments(sys.argv[1:]))))
