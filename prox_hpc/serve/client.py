"""Asking an SGLang server: the score of a document from one forward pass, and the program of a chunk.

Prompts are token ids, so what the server reads is exactly what was counted. The number of requests in flight is
bounded here; SGLang batches them as they come. A broken connection is tried again a few times, a refused request and a
dead server are errors at once.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from prox_hpc.serve.server import Server, ServerError

TRIES = 4
FIRST_PAUSE_S = 0.5
"""Pause before the second try; it doubles with every further one (0.5, 1, 2 s)."""


@dataclass(frozen=True)
class Score:
    """Log-probabilities of the two answers' tokens after the prompt."""

    keep: float
    drop: float

    @property
    def value(self) -> float:
        """log p(keep) - log p(drop); at least 0 where greedy decoding between the two would keep."""
        return self.keep - self.drop


@dataclass(frozen=True)
class Generation:
    """A generated answer. truncated: it hit the token limit. tokens: generated ones, the end-of-sequence included."""

    text: str
    truncated: bool
    tokens: int


class Client:
    """`async with Client(server) as client`: at most `serve.requests_in_flight` requests at a time.

    Raises ServerError when the server died, refused a request, or could not be reached in `TRIES` tries.
    """

    def __init__(self, server: Server):
        self._server = server
        self._slots = asyncio.Semaphore(server.serve.requests_in_flight)
        self._session: Any = None

    async def __aenter__(self) -> "Client":
        import aiohttp

        self._session = aiohttp.ClientSession(
            self._server.url,
            headers=self._server.headers,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self._server.serve.request_timeout_s),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def score(self, ids: Sequence[int], keep_id: int, drop_id: int) -> Score:
        """Log-probabilities of `keep_id` and `drop_id` as the token after `ids`; one forward pass, nothing decoded."""
        answer = await self._generate(
            {
                "input_ids": list(ids),
                "sampling_params": {"temperature": 0, "max_new_tokens": 1},
                "return_logprob": True,
                "logprob_start_len": -1,
                "token_ids_logprob": [keep_id, drop_id],
            }
        )
        found = {token: value for value, token, _ in answer["meta_info"]["output_token_ids_logprobs"][0]}
        score = Score(_number(found[keep_id]), _number(found[drop_id]))
        if not math.isfinite(score.value):
            raise ServerError(f"the server of {self._server.model} gave {score} for a document: the model is broken")
        return score

    async def generate(
        self, ids: Sequence[int], max_new_tokens: int, grammar: str | None = None, stop_ids: Sequence[int] = ()
    ) -> Generation:
        """Greedy continuation of `ids`, within `grammar` (EBNF) if given, up to one of `stop_ids` (not in the text)."""
        sampling: dict[str, Any] = {"temperature": 0, "max_new_tokens": max_new_tokens}
        if grammar is not None:
            sampling["ebnf"] = grammar
        if stop_ids:
            sampling["stop_token_ids"] = list(stop_ids)
        answer = await self._generate({"input_ids": list(ids), "sampling_params": sampling})
        meta = answer["meta_info"]
        reason = meta["finish_reason"]["type"]
        if reason not in ("stop", "length"):
            raise ServerError(f"the server of {self._server.model} broke off a request: {meta['finish_reason']}")
        return Generation(answer["text"], reason == "length", meta["completion_tokens"])

    async def _generate(self, body: dict[str, Any]) -> dict[str, Any]:
        import aiohttp

        pause = FIRST_PAUSE_S
        async with self._slots:
            for left in reversed(range(TRIES)):
                try:
                    return await self._post(body)
                except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
                    self._server.check()
                    if not left:
                        raise ServerError(
                            f"no answer from the SGLang server of {self._server.model} in {TRIES} tries "
                            f"({type(error).__name__}: {error}); see {self._server.log}"
                        ) from error
                await asyncio.sleep(pause)
                self._server.check()
                pause *= 2
        raise AssertionError("unreachable")

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        async with self._session.post("/generate", json=body) as answer:
            if answer.status != 200:
                text = (await answer.text())[:500]
                # A dying server answers 500 to what it had in flight: then its own last words say more.
                await asyncio.sleep(FIRST_PAUSE_S)
                self._server.check()
                raise ServerError(f"the SGLang server of {self._server.model} answered {answer.status}: {text}")
            result: dict[str, Any] = await answer.json()
            return result


def _number(value: float | None) -> float:
    return -math.inf if value is None else value
