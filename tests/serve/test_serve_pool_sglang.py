"""The pool on real SGLang servers: the model's answers, whatever is killed meanwhile, and one poisonous request."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from prox_hpc.config import Serve
from prox_hpc.serve.client import Generation, Score
from prox_hpc.serve.pool import Pool, Quarantined
from prox_hpc.serve.server import CPU_SHIM

SERVE = Serve(device="cpu", dtype="float32", max_total_tokens=8192, requests_in_flight=8)
PROMPTS = [[5 + i * 37 % 900 for i in range(start, start + 3 + 7 * start)] for start in range(24)]
KEEP, DROP, POISON = 17, 18, 999

# A server whose scheduler process ends when it sees the token. Spawned processes import their parent's main file, so
# the scheduler's process is patched as well.
POISONED = f"""
import os, runpy, sys
from sglang.srt.managers.scheduler import Scheduler

whole = Scheduler.handle_generate_request

def handle(self, request, **options):
    if {POISON} in request.input_ids:
        os._exit(9)
    return whole(self, request, **options)

Scheduler.handle_generate_request = handle
if __name__ == "__main__":
    sys.argv = sys.argv[2:]  # past `-m`
    runpy.run_module("sglang.launch_server", run_name="__main__")
"""


async def ask(pool: Pool, model: str) -> list[Any]:
    jobs: list[Any] = [pool.score(model, ids, KEEP, DROP) for ids in PROMPTS]
    jobs += [pool.generate(model, ids, 5 + number, None, [0]) for number, ids in enumerate(PROMPTS)]
    return await asyncio.gather(*jobs)


def test_replicas_answer_like_the_model_also_when_one_is_killed(tiny_refiner: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    name = str(tiny_refiner)

    async def main() -> tuple[list[Any], list[Any], dict[str, float]]:
        async with Pool([name], Serve(**{**vars(SERVE), "replicas": 2, "radix_cache": True}), tmp_path) as pool:
            undisturbed = await ask(pool, name)
            for start in range(10, 14):  # what was read for the score is not read again
                page = PROMPTS[-1][start:]
                score = await pool.score(name, [*page, 7], KEEP, DROP)
                assert (await pool.generate(name, [*page, 8], 5, after=score)).cached == len(page)
            disturbed = asyncio.create_task(ask(pool, name))
            while not pool.figures()["in_flight"]:
                await asyncio.sleep(0)
            psutil.Process().children()[0].kill()
            return undisturbed, await disturbed, pool.figures()

    undisturbed, disturbed, figures = asyncio.run(main())
    assert figures["quarantined"] == 0
    assert figures["requests"] == 4 * len(PROMPTS) + 8
    assert not psutil.Process().children()

    model = LlamaForCausalLM.from_pretrained(tiny_refiner).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_refiner)
    for answers in (undisturbed, disturbed):
        for number, ids in enumerate(PROMPTS):
            prompt = torch.tensor([ids])
            with torch.no_grad():
                expected = torch.log_softmax(model(prompt).logits[0, -1].double(), -1)
            score, generation = answers[number], answers[len(PROMPTS) + number]
            assert isinstance(score, Score)
            assert score.keep == pytest.approx(expected[KEEP].item(), abs=1e-4)
            assert score.drop == pytest.approx(expected[DROP].item(), abs=1e-4)
            output = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5 + number, do_sample=False
            )
            generated = output[0, len(ids) :].tolist()
            text = tokenizer.decode(generated, skip_special_tokens=True)
            assert generation == Generation(text, generated[-1] != 0, len(generated))


def test_one_poisonous_document_is_put_aside(tiny_refiner: Path, tmp_path: Path) -> None:
    (tmp_path / "poisoned.py").write_text(POISONED)
    path = f"PYTHONPATH={CPU_SHIM}:{Path(sys.prefix) / 'sglang'}"
    command = [
        "env",
        path,
        "SGLANG_USE_CPU_ENGINE=1",
        "OMP_NUM_THREADS=1",
        sys.executable,
        str(tmp_path / "poisoned.py"),
    ]
    name = str(tiny_refiner)

    async def main() -> list[Any]:
        serve = Serve(**{**vars(SERVE), "command": command, "requests_in_flight": 2})
        async with Pool([name], serve, tmp_path) as pool:
            asked = [*PROMPTS[:2], [*PROMPTS[3], POISON], PROMPTS[2]]  # the longest goes first, with one other
            return await asyncio.gather(
                *(pool.score(name, ids, KEEP, DROP) for ids in asked),
                pool.generate(name, [600] * 600, 4),  # more than the model can read
                return_exceptions=True,
            )

    answers = asyncio.run(main())
    assert [type(answer) for answer in answers] == [Score, Score, Quarantined, Score, Quarantined]
    assert "killed the server" in answers[2].reason
    assert "refused" in answers[4].reason
