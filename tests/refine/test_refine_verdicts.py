"""The doc stage's scores against the answers that the same refiner writes when it is let write them."""

import asyncio
from pathlib import Path

import pyarrow.parquet as pq

from prox_hpc.programs import parse
from prox_hpc.refine.settings import Settings, Stages
from prox_hpc.serve.client import Generation
from prox_hpc.serve.pool import Pool
from prox_hpc.study.store import load_run
from prox_hpc.task import Task


def test_scores_at_threshold_zero_are_the_greedy_answers(tiny_study: Path, tmp_path: Path) -> None:
    """Of a refiner trained by a study: what it writes, decoded greedily and freely, is what its scores say."""
    config, steps = load_run(tiny_study)
    step = next(step for step in steps if step.kind == "refine")
    task = Task(step, 0, Path(config["store"]))
    settings = Settings.of(task)
    doc = Stages.of(settings).doc
    assert doc is not None
    source = sorted((task.input("corpus") / "blocks").glob("*.parquet"))
    texts = {row["id"]: row["text"] for path in source for row in pq.read_table(path).to_pylist()}
    programs = sorted((task.out / "blocks").glob("*.programs.parquet"))
    scores = {row["id"]: row["doc_score"] for path in programs for row in pq.read_table(path).to_pylist()}
    scores = {identity: score for identity, score in scores.items() if score is not None}

    async def answers() -> list[Generation]:
        prompts = doc.prompts([texts[identity] for identity in scores])
        asked = [prompt.ids[: len(prompt.ids) - len(doc.prefix)] for prompt in prompts]
        model = settings.models["doc"]
        async with Pool([model], settings.serve, tmp_path) as pool:
            return await asyncio.gather(*(pool.generate(model, ids, 16, None, [doc.model.eos_id]) for ids in asked))

    found = [parse(answer.text, "doc") for answer in asyncio.run(answers())]
    verdicts = {"KeepDoc": True, "DropDoc": False}
    agree = [
        verdicts[type(program.operations[0]).__name__] == (score >= 0)
        for program, score in zip(found, scores.values(), strict=True)
        if program.status == "ok"
    ]
    assert len(agree) > 0.9 * len(scores), "the refiner hardly writes answers at all"
    assert all(agree)
