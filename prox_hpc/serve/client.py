"""Asking one SGLang server about many prompts in one call: scores from one forward pass, or greedy continuations.

Prompts are token ids, so what the server reads is exactly what was counted. Scores come back together. Continuations
are streamed, each as it ends: in one plain answer for all, the short ones would hold their places until the longest is
done. (The server would also report every token; told to report only every so many, it sends the first and the last.)
"""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import orjson

from prox_hpc.serve.server import Server, ServerError

KEEP_ALIVE_S = 2
"""SGLang closes a connection idle for 5 s; ours must be closed before, or a request meets a connection just closed."""
_NEVER = 1 << 30


class Refused(ServerError):
    """The server refuses one of the requests (HTTP 400), the others of the call with it."""


class Fault(ServerError):
    """The server failed to answer (HTTP 500), or broke off an answer."""


@dataclass(frozen=True)
class Score:
    """Log-probabilities of the two answers' tokens after the prompt. replica: the server that read it."""

    keep: float
    drop: float
    replica: int | None = field(default=None, compare=False)

    @property
    def value(self) -> float:
        """log p(keep) - log p(drop); at least 0 where greedy decoding between the two would keep."""
        return self.keep - self.drop


@dataclass(frozen=True)
class Generation:
    """A generated answer. truncated: it hit the token limit. tokens: generated ones, the end-of-sequence included.

    cached: tokens of the prompt that the server had read before (its prefix cache).
    """

    text: str
    truncated: bool
    tokens: int
    cached: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Scoring:
    """Asks for the log-probabilities of two tokens after the prompt; one forward pass, nothing decoded."""

    keep_id: int
    drop_id: int

    def fields(self) -> dict[str, Any]:
        return {
            "sampling_params": {"temperature": 0, "max_new_tokens": 1},
            "return_logprob": True,
            "logprob_start_len": -1,
            "token_ids_logprob": [self.keep_id, self.drop_id],
        }

    def read(self, answer: dict[str, Any]) -> Score:
        found = {token: value for value, token, _ in answer["meta_info"]["output_token_ids_logprobs"][0]}
        score = Score(_number(found[self.keep_id]), _number(found[self.drop_id]))
        if not math.isfinite(score.value):
            raise Refused(f"the server gave {score}, which is no verdict")
        return score


@dataclass(frozen=True)
class Generating:
    """Asks for the greedy continuation, within `grammar` (EBNF) if given, up to one of `stop_ids` (not in the text)."""

    max_new_tokens: int
    grammar: str | None = None
    stop_ids: tuple[int, ...] = ()

    def fields(self) -> dict[str, Any]:
        sampling: dict[str, Any] = {"temperature": 0, "max_new_tokens": self.max_new_tokens, "stream_interval": _NEVER}
        if self.grammar is not None:
            sampling["ebnf"] = self.grammar
        if self.stop_ids:
            sampling["stop_token_ids"] = self.stop_ids
        return {"sampling_params": sampling, "stream": True}

    def read(self, answer: dict[str, Any]) -> Generation:
        meta = answer["meta_info"]
        reason = meta["finish_reason"]["type"]
        if reason not in ("stop", "length"):
            raise Fault(f"the server broke off a request: {meta['finish_reason']}")
        return Generation(answer["text"], reason == "length", meta["completion_tokens"], meta.get("cached_tokens", 0))


Question = Scoring | Generating


class Client:
    """`async with Client(server) as client`: calls to a running server, as many at a time as the caller makes.

    aiohttp.ClientError and TimeoutError pass through: whether the server has died is the caller's to find out.
    """

    def __init__(self, server: Server):
        self._server = server
        self._session: Any = None

    async def __aenter__(self) -> "Client":
        import aiohttp

        self._session = aiohttp.ClientSession(
            self._server.url,
            headers={**self._server.headers, "Content-Type": "application/json"},
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=self._server.serve.request_timeout_s),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(
        self, question: Question, prompts: Sequence[Sequence[int]]
    ) -> AsyncIterator[tuple[int, Score | Generation]]:
        """(number of the prompt, its answer), each as it comes; in one call.

        Refused when the server refuses one of the prompts, Fault when it fails; some answers may have come before.
        """
        body = orjson.dumps({"input_ids": prompts, **question.fields()}, option=orjson.OPT_SERIALIZE_NUMPY)
        async with self._session.post("/generate", data=body) as response:
            if response.status != 200:
                raise _error(response.status, (await response.text())[:500])
            if isinstance(question, Scoring):
                for number, answer in enumerate(orjson.loads(await response.read())):
                    yield number, question.read(answer)
                return
            async for answer in _events(response.content):
                if "error" in answer:
                    raise _error(int(answer["error"].get("code", 400)), str(answer["error"].get("message")))
                if answer["meta_info"]["finish_reason"] is not None:
                    yield answer["index"], question.read(answer)


async def _events(content: Any) -> AsyncIterator[dict[str, Any]]:
    """The server-sent events of an answer; Fault when it ends without its end mark."""
    rest = b""
    async for data in content.iter_any():
        *events, rest = (rest + data).split(b"\n\n")
        for event in events:
            if event == b"data: [DONE]":
                return
            yield orjson.loads(event.removeprefix(b"data: "))
    raise Fault("the server ended an answer early")


def _error(status: int, text: str) -> ServerError:
    if status == 400:
        return Refused(text)
    return Fault(f"the server answered {status}: {text}")


def _number(value: float | None) -> float:
    return -math.inf if value is None else value
