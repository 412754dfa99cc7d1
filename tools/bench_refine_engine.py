"""A bare `sglang.Engine` in this process, fed all token ids at once: the most that a host can get out of the server.

    python bench_refine_engine.py WORK.json RESULT.json STAGES... -- SERVER ARGUMENTS...

Run by `bench_refine.py` in the server's environment, with the arguments that a refine task's own server is started
with. STAGES: any of doc, chunk, both, timed in this order after one warm-up request of each kind, as a server answers
one before it is called ready. `both` hands over the kept documents' chunks together with all doc prompts, although
nobody could know yet which are kept: it is a bound, not a way to work. Nothing is tokenised, executed or written.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench_refine_requests import doc_request, program_sampling


class Bare:
    """The engine and the work it is fed; `work` as in `bench_refine_work.Work`, plain JSON (that module needs more)."""

    def __init__(self, engine: Any, work: dict[str, Any]) -> None:
        self.engine, self.work = engine, work

    async def docs(self, prompts: list[list[int]]) -> list[dict[str, Any]]:
        asked = doc_request(self.work["keep_id"], self.work["drop_id"])
        each = {"token_ids_logprob": [asked["token_ids_logprob"]] * len(prompts)}
        answers: list[dict[str, Any]] = await self.engine.async_generate(input_ids=prompts, **{**asked, **each})
        return answers

    async def chunks(self, prompts: list[list[int]]) -> list[dict[str, Any]]:
        sampling = program_sampling(self.work["max_new_tokens"], self.work["eos_id"], self.work["grammar"])
        answers: list[dict[str, Any]] = await self.engine.async_generate(input_ids=prompts, sampling_params=sampling)
        return answers

    async def run(self, stages: str) -> dict[str, Any]:
        """Seconds and tokens of one pass over all work."""
        requests = self.work["requests"]
        kept = self.work["kept"] if stages == "both" else [True] * len(requests)
        docs = [one["doc"] for one in requests] if stages != "chunk" else []
        chunks = [ids for one, keep in zip(requests, kept, strict=True) if keep for ids in one["chunks"]]
        chunks = chunks if stages != "doc" else []
        started = time.perf_counter()
        answered = await asyncio.gather(
            *([self.docs(docs)] if docs else []), *([self.chunks(chunks)] if chunks else [])
        )
        seconds = time.perf_counter() - started
        answers = [answer["meta_info"] for part in answered for answer in part]
        if len(answers) != len(docs) + len(chunks):
            raise RuntimeError(f"{len(answers)} answers to {len(docs) + len(chunks)} requests")
        programs = answers[len(docs) :]
        return {
            "seconds": seconds,
            "documents": len(requests),
            "doc_prefill": sum(one["prompt_tokens"] for one in answers[: len(docs)]),
            "chunk_prefill": sum(one["prompt_tokens"] for one in programs),
            "chunk_decode": sum(one["completion_tokens"] for one in programs),
        }


async def warm_up(bare: Bare) -> None:
    await bare.docs([[1, 2, 3]])
    await bare.chunks([[1, 2, 3]])


def measure(engine: Any, work: dict[str, Any], stages: list[str]) -> dict[str, Any]:
    """Each of the stages, with nothing remembered of the ones before: the same prompts would come from the cache."""
    bare = Bare(engine, work)
    engine.loop.run_until_complete(warm_up(bare))
    result = {}
    for name in stages:
        engine.flush_cache()
        result[name] = engine.loop.run_until_complete(bare.run(name))
    return result


def main() -> int:
    from sglang import Engine
    from sglang.srt.server_args import prepare_server_args

    split = sys.argv.index("--")
    work, result, *stages = sys.argv[1:split]
    engine = Engine(server_args=prepare_server_args(sys.argv[split + 1 :]))
    try:
        measured = measure(engine, json.loads(Path(work).read_text()), stages)
    finally:
        engine.shutdown()
    Path(result).write_text(json.dumps(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
