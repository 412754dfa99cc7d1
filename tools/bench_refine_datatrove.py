"""datatrove's InferenceRunner over the bench's corpus; run by `bench_refine.py` in datatrove's own environment.

    python bench_refine_datatrove.py SPEC.json

Two jobs, written as datatrove's documentation shows (a rollout function that calls `generate`, text prompts to its
completion endpoint). `doc`: every document one request of one new token, nothing else. `both`: the whole refining job:
generate the doc answer, leave out a document it drops, else generate the program of every chunk at once, execute
the programs and write the refined documents. SPEC's keys are the fields of `Spec`. Prints one line of JSON.

Time counts from its server's readiness to the last byte of its output, as for the engine under test.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spec:
    """documents: those that must come out of `doc`. generations: max_concurrent_generations. server: its flags.

    stops: whether the doc answer ends at the end of sequence, as a trained refiner's does.
    checkpoints: a local folder for datatrove's checkpoints and request cache, as its documentation shows.
    """

    job: str
    model: str
    context: int
    corpus: str
    output: str
    documents: int
    generations: int | None
    server: dict[str, Any]
    prompt: str
    max_chunk_tokens: int
    max_new_tokens: int
    doc_new_tokens: int
    stops: bool = True
    checkpoints: bool = False


@dataclass
class Context:
    """What the rollouts share: the tokenizer that cuts chunks, and counts of what was asked."""

    spec: Spec
    tokenizer: Any
    tokens: dict[str, int] = field(default_factory=dict)
    dropped: int = 0

    def count(self, lines: list[str]) -> list[int]:
        return [len(one.ids) for one in self.tokenizer.encode_batch_fast(lines, add_special_tokens=False)]

    def add(self, kind: str, usage: dict[str, Any]) -> None:
        for name, key in (("prefill", "prompt_tokens"), ("decode", "completion_tokens")):
            self.tokens[f"{kind}_{name}"] = self.tokens.get(f"{kind}_{name}", 0) + usage[key]


async def answer(document: Any, generate: Callable[..., Any], context: Context) -> str:
    """One request a document, one new token: the same token work as scoring it."""
    from prox_hpc.serve.prompt import render_doc

    found = await generate({"prompt": render_doc(context.spec.prompt, document.text), "max_tokens": 1})
    context.add("doc", found.usage)
    return str(found.text)


async def refine(document: Any, generate: Callable[..., Any], context: Context) -> dict[str, Any] | None:
    """Both stages of one document; None (datatrove then leaves it out) for one that is dropped."""
    from prox_hpc.programs import ChunkProgram, DocumentChecks, refine_document, split_chunks
    from prox_hpc.serve.prompt import render_chunk, render_doc

    spec = context.spec
    verdict = {"prompt": render_doc(spec.prompt, document.text), "max_tokens": spec.doc_new_tokens}
    found = await generate(verdict if spec.stops else {**verdict, "ignore_eos": True})
    context.add("doc", found.usage)
    if found.text.lstrip().startswith("drop"):
        context.dropped += 1
        return None
    chunks = [one for one in split_chunks(document.text, context.count, spec.max_chunk_tokens) if not one.oversized]
    asked = [{"prompt": render_chunk(spec.prompt, one), "max_tokens": spec.max_new_tokens} for one in chunks]
    answers = await asyncio.gather(*map(generate, asked))
    for one in answers:
        context.add("chunk", one.usage)
    programs = [
        ChunkProgram(chunk.first_line, len(chunk.lines), one.text, one.finish_reason == "length")
        for chunk, one in zip(chunks, answers, strict=True)
    ]
    result = refine_document(document.text, programs, checks=DocumentChecks())
    if result.outcome == "dropped":
        context.dropped += 1
        return None
    document.text = result.text
    return {"programs": [one.text for one in answers]}


@contextmanager
def shared(spec: Spec) -> Iterator[dict[str, Any]]:
    """The rollouts' context; its counts are written at the end."""
    from tokenizers import Tokenizer

    context = Context(spec, Tokenizer.from_file(f"{spec.model}/tokenizer.json"))
    yield {"context": context}
    counts = {"tokens": context.tokens, "dropped": context.dropped}
    (Path(spec.output) / "counts.json").write_text(json.dumps(counts))


def executor(spec: Spec) -> Any:
    """The pipeline: read Parquet, infer, write Parquet."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    config = InferenceConfig(
        server_type="sglang",
        model_name_or_path=spec.model,
        model_max_context=spec.context,
        use_chat=False,
        default_generation_params={"temperature": 0},
        model_kwargs=spec.server,
        **({} if spec.generations is None else {"max_concurrent_generations": spec.generations}),
    )
    output = Path(spec.output)
    name = "${rank}_${chunk_index}.parquet" if spec.checkpoints else "${rank}.parquet"
    runner = InferenceRunner(
        rollout_fn=answer if spec.job == "doc" else refine,
        config=config,
        output_writer=ParquetWriter(str(output / "documents"), output_filename=name),
        shared_context=partial(shared, spec),
        checkpoints_local_dir=str(output / "checkpoints") if spec.checkpoints else None,
    )
    return LocalPipelineExecutor([ParquetReader(spec.corpus), runner], tasks=1, logging_dir=str(output / "logs"))


def ready_at(output: Path) -> float:
    """When datatrove had found that the server is ready, by its own log; it asks every 5 s and sends nothing before.

    SGLang's own word is no measure: one run in twelve was found ready while it still warmed up, and it said so only
    when all documents were done.
    """
    lines = (output / "logs" / "logs" / "task_00000.log").read_text().splitlines()
    told = [line.split(" | ")[0] for line in lines if "server is ready" in line]
    return max(datetime.strptime(moment, "%Y-%m-%d %H:%M:%S.%f").timestamp() for moment in told)


def main() -> int:
    import pyarrow.parquet as pq

    spec = Spec(**json.loads(Path(sys.argv[1]).read_text()))
    executor(spec).run()
    output = Path(spec.output)
    files = sorted((output / "documents").glob("*.parquet"))
    done = max(file.stat().st_mtime_ns for file in files) / 1e9
    result = {
        "seconds": done - ready_at(output),
        "documents": spec.documents,
        "came_out": sum(pq.read_metadata(file).num_rows for file in files),
        **json.loads((output / "counts.json").read_text()),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
