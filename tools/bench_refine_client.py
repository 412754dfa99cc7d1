"""A plain client of one SGLang server: what each saving of the refining engine saves, however the engine is built.

`score`: scoring a document against generating its answer, by document length. `ablations`: the whole refining job with
all savings, and with one of them switched off at a time. All through the same server, one request an HTTP call, a
bounded number in flight, token ids made beforehand: nothing but the server's work differs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from bench_programs import spread
from bench_refine_requests import answer_sampling, doc_request, program_sampling
from bench_refine_work import Limits, Request, Work, doc_ids, generated_texts

from prox_hpc.config import Serve
from prox_hpc.refine import tokens
from prox_hpc.serve.server import Server

PROX_NEW_TOKENS = 2000
"""max_tokens of ProX's released doc stage (its apply_doc_refining.py)."""
LENGTHS = (64, 128, 256, 512, 1024, 2048)
UNSTOPPED_DOCUMENTS = 4
"""For the variant that always writes 2,000 tokens: half a minute each at 30M parameters on two cores."""


@dataclass(frozen=True)
class Savings:
    """What the engine does to save work; `ablations` switches one off at a time.

    scoring: instead of generating the doc answer. doc_stops: a generated doc answer ends where it ends, and is not run
    to the limit (the tokenizer here has one token for each call; others need some five for an answer, or run on).
    stops: so do programs. grammar: they are constrained. one_pass: a kept document goes on at once.
    """

    scoring: bool = True
    doc_stops: bool = True
    stops: bool = True
    grammar: bool = True
    one_pass: bool = True


ABLATIONS = {
    "all savings": Savings(),
    "doc answers generated": Savings(scoring=False),
    "doc answers generated to the limit": Savings(scoring=False, doc_stops=False),
    "two passes": Savings(one_pass=False),
    "no grammar": Savings(grammar=False),
    # with a grammar nothing but the end is allowed after the end
    "programs to the limit, no grammar": Savings(stops=False, grammar=False),
}


class Plain:
    """`async with Plain(server, in_flight) as client`: POST /generate and counts of what came of it."""

    def __init__(self, server: Server, in_flight: int) -> None:
        self.server, self.slots = server, asyncio.Semaphore(in_flight)
        self.tokens: dict[str, int] = {}

    async def __aenter__(self) -> Plain:
        import aiohttp

        connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
        self.session = aiohttp.ClientSession(
            self.server.url, headers=self.server.headers, connector=connector, timeout=timeout
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def flush(self) -> None:
        async with self.session.post("/flush_cache") as response:
            response.raise_for_status()

    async def ask(self, stage: str, ids: Sequence[int], body: dict[str, Any]) -> dict[str, Any]:
        async with self.slots, self.session.post("/generate", json={"input_ids": list(ids), **body}) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
        for kind, key in (
            ("prefill", "prompt_tokens"),
            ("cached", "cached_tokens"),
            ("decode", "completion_tokens"),
        ):
            name = f"{stage}_{kind}"
            self.tokens[name] = self.tokens.get(name, 0) + answer["meta_info"][key]
        return answer

    async def score(self, ids: Sequence[int], keep_id: int, drop_id: int) -> float:
        """log p(keep) - log p(drop)."""
        answer = await self.ask("doc", ids, doc_request(keep_id, drop_id))
        found = {token: value for value, token, _ in answer["meta_info"]["output_token_ids_logprobs"][0]}
        return float(found[keep_id] - found[drop_id])

    async def verdict(self, ids: Sequence[int], new_tokens: int, stops: bool) -> tuple[bool, int]:
        """Whether the generated answer keeps the document, and the tokens it took."""
        answer = await self.ask("doc", ids, {"sampling_params": answer_sampling(new_tokens, stops)})
        return not answer["text"].lstrip().startswith("drop"), answer["meta_info"]["completion_tokens"]

    async def program(self, ids: Sequence[int], sampling: dict[str, Any]) -> None:
        await self.ask("chunk", ids, {"sampling_params": sampling})


Job = Callable[[Plain], Awaitable[Any]]


def serve(model: Path, settings: Serve, log: Path, jobs: Callable[[Server], Awaitable[Any]]) -> Any:
    """Start a server, run `jobs(server)` and stop it."""
    with Server(str(model), settings, log) as server:
        return asyncio.run(jobs(server))  # type: ignore[arg-type]


async def timed(server: Server, in_flight: int, job: Job) -> tuple[float, dict[str, int], Any]:
    """-> seconds, tokens by kind, what the job returned; nothing comes from the cache of an earlier job's prompts."""
    async with Plain(server, in_flight) as client:
        await client.flush()
        started = time.perf_counter()
        found = await job(client)
        return time.perf_counter() - started, client.tokens, found


# --- the whole job with and without each saving -----------------------------------------------------------------------


async def refine(client: Plain, work: Work, limits: Limits, savings: Savings) -> list[bool]:
    """Doc and chunk stage of all documents; -> which are kept."""
    grammar = work.grammar if savings.grammar else None
    sampling = program_sampling(work.max_new_tokens, work.eos_id, grammar, savings.stops)

    async def doc(one: Request) -> bool:
        if savings.scoring:
            return await client.score(one.doc, work.keep_id, work.drop_id) >= 0
        return (await client.verdict(one.doc, limits.doc_new_tokens, savings.doc_stops))[0]

    async def chunks(one: Request) -> None:
        await asyncio.gather(*(client.program(ids, sampling) for ids in one.chunks))

    async def both(one: Request) -> bool:
        kept = await doc(one)
        if kept:
            await chunks(one)
        return kept

    if savings.one_pass:
        return list(await asyncio.gather(*map(both, work.requests)))
    verdicts = await asyncio.gather(*map(doc, work.requests))
    await asyncio.gather(*(chunks(one) for one, kept in zip(work.requests, verdicts, strict=True) if kept))
    return list(verdicts)


def ablations(work: Work, limits: Limits, rounds: int, in_flight: int) -> Callable[[Server], Awaitable[dict[str, Any]]]:
    """The job of `refine` for each set of savings, in alternating order, on a server that is ready."""

    async def run(server: Server) -> dict[str, Any]:
        rates: dict[str, list[float]] = {}
        more: dict[str, Any] = {}
        for number in range(rounds):
            for name in list(ABLATIONS)[:: 1 if number % 2 == 0 else -1]:
                savings = ABLATIONS[name]
                job = partial(refine, work=work, limits=limits, savings=savings)
                seconds, used, kept = await timed(server, in_flight, job)
                rates.setdefault(name, []).append(len(work.requests) / seconds)
                more[name] = {"kept": sum(kept), "tokens": used}
        base = rates["all savings"]
        return {
            name: {
                "documents_per_second": spread(values, 2),
                "all savings / this": spread([a / b for a, b in zip(base, values, strict=True)], 3),
                **more[name],
            }
            for name, values in rates.items()
        }

    return run


# --- the doc stage by document length ---------------------------------------------------------------------------------


def by_length(model: tokens.Model, limits: Limits, documents: int) -> dict[int, list[list[int]]]:
    """For each of LENGTHS so many doc prompts, made of generated pages, a few tokens shorter or longer."""
    texts = generated_texts()
    found: dict[int, list[list[int]]] = {}
    for length in LENGTHS:
        if length + 32 > model.context:
            continue
        found[length] = [_prompt(model, limits, texts, length) for _ in range(documents)]
    return found


def _prompt(model: tokens.Model, limits: Limits, texts: Iterable[str], length: int) -> list[int]:
    lines: list[str] = []
    around = len(doc_ids(model, limits, [""])[0])
    size = 0
    while size < length - around:
        for line in next(iter(texts)).split("\n"):
            used = len(model.encode([line + "\n"])[0])
            if size + used > length - around and lines:
                return doc_ids(model, limits, ["\n".join(lines)])[0]
            lines.append(line)
            size += used
    return doc_ids(model, limits, ["\n".join(lines)])[0]


def score_against_answers(
    work: Work, prompts: dict[int, list[list[int]]], limits: Limits, rounds: int, in_flight: int
) -> Callable[[Server], Awaitable[dict[str, Any]]]:
    """Documents a second of scoring, of generating the answer until it stops, and of ProX's released way."""

    async def score(client: Plain, ids: list[int]) -> tuple[bool, int]:
        return await client.score(ids, work.keep_id, work.drop_id) >= 0, 1

    ways: dict[str, Callable[[Plain, list[int]], Awaitable[tuple[bool, int]]]] = {
        "score": score,
        "generate": lambda client, ids: client.verdict(ids, limits.doc_new_tokens, stops=True),
        f"up to {PROX_NEW_TOKENS} new tokens": lambda client, ids: client.verdict(ids, PROX_NEW_TOKENS, stops=True),
    }

    def job(way: Any, chosen: Sequence[list[int]]) -> Job:
        return lambda client: asyncio.gather(*(way(client, ids) for ids in chosen))

    async def run(server: Server) -> dict[str, Any]:
        result = {}
        for length, chosen in prompts.items():
            rates: dict[str, list[float]] = {name: [] for name in ways}
            said: dict[str, list[tuple[bool, int]]] = {}
            for number in range(rounds + 1):  # the first one warms up
                for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
                    seconds, _, said[name] = await timed(server, in_flight, job(ways[name], chosen))
                    if number:
                        rates[name].append(len(chosen) / seconds)
            result[str(length)] = _compared(rates, said)
        result["never stopped"] = await _never_stopped(server, prompts, in_flight)
        return result

    return run


def _compared(rates: dict[str, list[float]], said: dict[str, list[tuple[bool, int]]]) -> dict[str, Any]:
    agreed = [a == b for (a, _), (b, _) in zip(said["score"], said["generate"], strict=True)]
    ratios = {
        f"score / {name}": spread([a / b for a, b in zip(rates["score"], values, strict=True)], 3)
        for name, values in rates.items()
        if name != "score"
    }
    return {
        "documents_per_second": {name: spread(values, 1) for name, values in rates.items()},
        **ratios,
        "new_tokens_mean": {name: sum(n for _, n in one) / len(one) for name, one in said.items()},
        "same_verdict": sum(agreed) / len(agreed),
    }


async def _never_stopped(server: Server, prompts: dict[int, list[list[int]]], in_flight: int) -> dict[str, Any]:
    """A few documents with the answer running to 2,000 tokens: what a model that does not stop costs there."""
    length = min(prompts, key=lambda n: abs(n - 256))
    chosen = list(islice(prompts[length], UNSTOPPED_DOCUMENTS))

    async def job(client: Plain) -> None:
        await asyncio.gather(*(client.verdict(ids, PROX_NEW_TOKENS, stops=False) for ids in chosen))

    seconds, used, _ = await timed(server, in_flight, job)
    return {"length": length, "documents": len(chosen), "documents_per_second": len(chosen) / seconds, "tokens": used}
