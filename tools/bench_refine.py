"""How fast documents are refined, end to end, beside the bare engine, beside datatrove, and without a server at all.

    python tools/bench_refine.py --model outputs/store/artifacts/adapt/nano-*/model --parts engine datatrove score
    python tools/bench_refine.py --parts host --pages pages.jsonl.zst

One run measures everything on the same model, documents and machine, sides in alternating order, and prints JSON with
the spread over the rounds. `--model` is a trained refiner (a quickstart makes one); it is grown to about 30M parameters
without changing its answers, so that the server is the limit. Parts:

engine      The refine step against a bare `sglang.Engine` fed the same token ids at once; doc, chunk, both stages.
datatrove   The refine step against datatrove's InferenceRunner with its SGLang server: the same token work (doc stage,
            one new token), and the whole refining job; default settings and the best found. With `--prompt page` and a
            refiner trained for it, `--peer-model` is one trained for the two prompts that ProX has, `tags`: the peer
            then does the whole job with either, on documents about which both refiners say the same.
ablations   The whole job by a plain client, with one of the engine's savings switched off at a time.
score       Scoring a document against generating its answer, and against ProX's released way, by document length.
host        The refine step with a server that answers at once: documents of 4 kB (from `--pages`), a
            Llama-3-like BPE of 32,768 tokens trained on them. `--profile` says where the time goes.
gpu         `--device cuda`: tokens/s per GPU and share of the roofline, by replicas of the server.

Start-up is left out on every side: time counts from a server's readiness to the last published block, or the last byte
of output. Run it on a quiet machine: every idle SGLang scheduler nearby costs a core.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_refine_client as client
import bench_refine_peers as peers
from bench_programs import machine, spread
from bench_refine_datatrove import Spec
from bench_refine_run import Ran, alternating, cores, make_step, ratio, run_step
from bench_refine_work import (
    SIZES,
    Limits,
    Work,
    bpe_model,
    fitting,
    generated_texts,
    grow,
    make_work,
    page_texts,
    read_corpus,
    with_verdicts,
    write_corpus,
)

from prox_hpc.config import Serve
from prox_hpc.refine import tokens
from prox_hpc.serve.prompt import TEMPLATES, template

STAGES = ("doc", "chunk", "both")
TWO_PROMPTS = "tags"
"""The prompt whose stages share nothing, as in ProX."""
GENERATIONS = (16, 32, 64, 128)
"""Concurrency tried for datatrove's best settings."""
HOST_LIMITS = Limits("llama2", max_doc_tokens=2000, max_chunk_tokens=1500, max_new_tokens=256)
ECHO_PROGRAMS = (
    "keep_chunk()",
    "remove_lines(0, 1)",
    "remove_lines(2, 2)\nremove_lines(5, 9)",
    'normalize("Read more")',
)


@dataclass
class Bench:
    """What the parts share: one model, one corpus, its requests, and where runs are put."""

    options: argparse.Namespace
    model: Path
    limits: Limits
    serve: dict[str, Any]
    corpus: Path
    source: dict[str, Any]
    work: Work
    peer_model: Path | None = None
    runs: int = 0

    @property
    def settings(self) -> Serve:
        return Serve(**self.serve)

    def log(self, name: str) -> Path:
        self.runs += 1
        log: Path = self.options.work / "logs" / f"{self.runs:03d}-{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        return log

    def ours(self, stages: str, serve: dict[str, Any] | None = None, check: bool = True) -> Ran:
        """One run of the refine step; RuntimeError when it did not ask what the peers are asked."""
        self.runs += 1
        limits = {name: getattr(self.limits, name) for name in ("prompt", "max_doc_tokens", "max_chunk_tokens")}
        refiner = {"doc_model": str(self.model), "chunk_model": str(self.model), **limits}
        refiner |= {"max_new_tokens": self.limits.max_new_tokens, **self.options.refiner}
        step = make_step("bench", refiner, serve or self.serve, self.source, stages)
        store = self.options.work / "stores" / f"{self.runs:03d}-{stages}"
        shutil.rmtree(store, ignore_errors=True)
        ran = run_step(step, store, self.options.profile)
        self._say(f"refine step, {stages}: {ran.summary['documents']['in'] / ran.seconds:.3f} documents/s")
        if check:
            self._check(ran, stages)
        return ran

    def _check(self, ran: Ran, stages: str) -> None:
        wanted = self.work.tokens(stages)
        got = {kind: ran.summary["tokens"][kind] for kind in wanted}
        if got != wanted:
            raise RuntimeError(f"the refine step sent {got} tokens, its peers {wanted}: not the same work")

    def find_kept(self) -> None:
        """A run that warms the disk and tells which documents the doc stage keeps, for those who cannot know."""
        import pyarrow.parquet as pq

        ran = self.ours("both", check=False)
        paths = sorted((ran.out / "blocks").glob("*.programs.parquet"))
        rows = [row for path in paths for row in pq.read_table(path, columns=["id", "doc_score"]).to_pylist()]
        score = {row["id"]: row["doc_score"] for row in rows}
        self.work.kept = [score[one.identity] >= 0 for one in self.work.requests]
        self._check(ran, "both")

    def _say(self, text: str) -> None:
        if not self.options.json_only:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def described(bench: Bench, runs: Sequence[Ran]) -> dict[str, Any]:
    """What several runs of the refine step came to."""
    documents, seconds = runs[0].summary["documents"]["in"], [ran.seconds for ran in runs]
    sums = [sum(n for kind, n in ran.summary["tokens"].items() if kind != "chunk_cached") for ran in runs]
    cpu = {kind: [ran.cpu[kind] for ran in runs] for kind in runs[0].cpu}
    rates = [n / s for n, s in zip(sums, seconds, strict=True)]
    return {
        "documents_per_second": spread([documents / one for one in seconds], 2),
        "tokens_per_second": spread(rates, 0),
        "tokens": runs[-1].summary["tokens"],
        "cores_used": {kind: spread([a / b for a, b in zip(v, seconds, strict=True)], 2) for kind, v in cpu.items()},
        "documents_per_core_second": spread([documents / max(one, 1e-9) for one in cpu["task"]], 1),
        "peak_mb": runs[-1].peak_mb,
        "startup_s": spread([ran.started_s for ran in runs], 1),
        "outcomes": {key: runs[-1].summary["documents"][key] for key in ("untouched", "edited", "dropped", "failed")},
        **({"roofline": roofline(bench, rates)} if bench.options.peak_tflops else {}),
        **({"telemetry": runs[-1].telemetry} if runs[-1].telemetry else {}),
        **({"profile": runs[-1].profile} if runs[-1].profile else {}),
    }


def roofline(bench: Bench, rates: Sequence[float]) -> dict[str, float]:
    """Share of the device's peak that 2 N FLOPs a token come to (N without embeddings, as the paper counts)."""
    size = tokens.load(str(bench.model)).parameters["non_embedding"]
    if size is None:
        raise RuntimeError(f"{bench.model}: its number of parameters is not known")
    return spread([2 * size * rate / bench.options.peak_tflops / 1e12 for rate in rates], 4)


# --- parts ------------------------------------------------------------------------------------------------------------


def part_engine(bench: Bench) -> dict[str, Any]:
    """The refine step against the bare engine."""
    work = bench.options.work / "work.json"
    bench.work.write(work)

    def bare() -> dict[str, Any]:
        return peers.bare_engine(bench.model, bench.settings, work, STAGES, bench.log("bare"))

    def ours() -> dict[str, Ran]:
        return {stages: bench.ours(stages) for stages in STAGES}

    found = alternating({"ours": ours, "bare": bare}, bench.options.rounds)
    result = {}
    for stages in STAGES:
        runs = [one[stages] for one in found["ours"]]
        times = [one[stages]["seconds"] for one in found["bare"]]
        count = len(bench.work.requests)
        result[stages] = {
            "ours / bare engine": ratio(times, [ran.seconds for ran in runs]),
            "ours": described(bench, runs),
            "bare_engine": {
                "documents_per_second": spread([count / one for one in times], 2),
                "tokens": {k: v for k, v in found["bare"][-1][stages].items() if "_" in k},
            },
        }
    return result


def part_datatrove(bench: Bench) -> dict[str, Any]:
    """The refine step against datatrove: the same token work, and the whole job."""
    python = peers.peer_environment(bench.options.peers)
    run = partial(_datatrove, bench, python)
    best = _best_generations(bench, run)
    result: dict[str, Any] = {"best_max_concurrent_generations": best}
    for job in bench.options.jobs:
        sides: dict[str, Callable[[], Any]] = {
            "ours": partial(bench.ours, job),
            "default": partial(run, job, None),
            "best": partial(run, job, best["chosen"]),
        }
        if job == "both":
            sides["best, doc answers not stopped"] = partial(run, job, best["chosen"], stops=False)
            if bench.peer_model is not None:
                sides["default, two prompts"] = partial(run, job, None, two_prompts=True)
                sides["best, two prompts"] = partial(run, job, best["chosen"], two_prompts=True)
                sides["best, two prompts, not stopped"] = partial(
                    run, job, best["chosen"], stops=False, two_prompts=True
                )
        found = alternating(sides, bench.options.rounds)
        ours: list[Ran] = found.pop("ours")
        own = [ran.seconds for ran in ours]
        result["same_token_work" if job == "doc" else "whole_job"] = {
            "ours": described(bench, ours),
            **{f"ours / {name}": ratio([one["seconds"] for one in runs], own) for name, runs in found.items()},
            **{name: _told(runs) for name, runs in found.items()},
        }
    return result


def _datatrove(
    bench: Bench, python: Path, job: str, generations: int | None, stops: bool = True, two_prompts: bool = False
) -> dict[str, Any]:
    """One datatrove run. generations None: its defaults and, as its documentation shows, with checkpoints.

    two_prompts: by the peer's own refiner, whose two prompts share nothing, so without a prefix cache when tuned.
    """
    log = bench.log(f"datatrove-{job}-{generations}")
    limits = {k: v for k, v in asdict(bench.limits).items() if k != "max_doc_tokens"}
    serve = bench.settings
    if two_prompts:
        limits["prompt"], serve = TWO_PROMPTS, replace(serve, radix_cache=False)
    spec = Spec(
        job=job,
        model=str(bench.peer_model if two_prompts else bench.model),
        context=tokens.load(str(bench.model)).context,
        corpus=str(bench.corpus),
        output=str(log.with_suffix("")),
        documents=len(bench.work.requests),
        generations=generations,
        server=peers.server_flags(bench.model, serve, tuned=generations is not None),
        stops=stops,
        checkpoints=generations is None,
        **limits,
    )
    found = peers.datatrove(python, spec, serve, log)
    told = f"{job} {generations or 'default'}{'' if stops else ' not stopped'}{' two prompts' if two_prompts else ''}"
    bench._say(f"datatrove {told}: {found['documents'] / found['seconds']:.3f} documents/s")
    return found


def _best_generations(bench: Bench, run: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Documents a second of the whole job by concurrency, one run each, and the best one."""
    rates = {n: (found := run("both", n))["documents"] / found["seconds"] for n in bench.options.generations}
    return {"chosen": max(rates, key=lambda n: rates[n]), "documents_per_second": rates}


def _told(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rates = [one["documents"] / one["seconds"] for one in runs]
    last = {key: runs[-1][key] for key in ("tokens", "came_out", "dropped")}
    return {"documents_per_second": spread(rates, 2), **last}


def part_ablations(bench: Bench) -> dict[str, Any]:
    jobs = client.ablations(bench.work, bench.limits, bench.options.rounds, bench.options.in_flight)
    found: dict[str, Any] = client.serve(bench.model, bench.settings, bench.log("ablations"), jobs)
    return found


def part_score(bench: Bench) -> dict[str, Any]:
    options = bench.options
    prompts = client.by_length(tokens.load(str(bench.model)), bench.limits, options.per_length)
    jobs = client.score_against_answers(bench.work, prompts, bench.limits, options.rounds, options.in_flight)
    found: dict[str, Any] = client.serve(bench.model, bench.settings, bench.log("score"), jobs)
    return found


def part_host(bench: Bench) -> dict[str, Any]:
    """The refine step with the echo server."""
    requests = bench.work.requests
    found = alternating(
        {stages: partial(bench.ours, stages, check=stages != "both") for stages in STAGES}, bench.options.rounds
    )
    return {
        "doc_tokens_mean": sum(len(one.doc) for one in requests) / len(requests),
        "chunks_mean": sum(len(one.chunks) for one in requests) / len(requests),
        **{stages: described(bench, runs) for stages, runs in found.items()},
    }


def part_gpu(bench: Bench) -> dict[str, Any]:
    """tokens/s of one task's GPUs by replicas of its server; share of the roofline with --peak-tflops."""
    result = {}
    for replicas in bench.options.replicas:
        serve = {**bench.serve, "replicas": replicas}
        sides = {stages: partial(bench.ours, stages, serve) for stages in STAGES}
        found = alternating(sides, bench.options.rounds)
        result[f"{replicas} replicas"] = {stages: described(bench, runs) for stages, runs in found.items()}
    return result


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "engine": part_engine,
    "datatrove": part_datatrove,
    "ablations": part_ablations,
    "score": part_score,
    "host": part_host,
    "gpu": part_gpu,
}
NEED_KEPT = {"engine", "datatrove", "gpu"}


# --- preparing --------------------------------------------------------------------------------------------------------


def served(options: argparse.Namespace) -> Bench:
    """The bench with a real server: the grown model and generated (or the given) pages."""
    if options.model is None:
        raise SystemExit("--model: give a trained refiner, e.g. the quickstart's OUTPUT/store/artifacts/adapt/*/model")
    model = grow(options.model.resolve(), SIZES[options.size], options.work / "models")
    limits = Limits(options.prompt, max_chunk_tokens=options.max_chunk_tokens)
    loaded = tokens.load(str(model))
    limits = replace(limits, max_doc_tokens=min(limits.max_doc_tokens, loaded.context - 64))
    serve: dict[str, Any] = {"device": options.device, "requests_in_flight": options.in_flight}
    on_cpu = {"dtype": "float32", "max_total_tokens": 40960}
    serve |= {"radix_cache": template(options.prompt).one_reading}
    serve |= (on_cpu if options.device == "cpu" else {"mem_fraction": 0.8}) | options.serve
    texts = fitting(page_texts(options.pages) if options.pages else generated_texts(), loaded, limits)
    judges = [(options.model.resolve(), limits)]
    peer_model = None
    if options.peer_model is not None:
        judges.append((options.peer_model.resolve(), replace(limits, prompt=TWO_PROMPTS)))
        peer_model = grow(options.peer_model.resolve(), SIZES[options.size], options.work / "models")
    texts = with_verdicts(texts, judges, options.kept)
    name = [*(model.parent.name for model, _ in judges), options.prompt]
    name += [options.documents, options.block, options.kept, limits.max_doc_tokens]
    corpus = options.work / "-".join(map(str, ["corpus", *name, *([options.pages.stem] if options.pages else [])]))
    source = write_corpus(corpus, texts, options.documents, options.block)
    work = make_work(loaded, limits, read_corpus(corpus))
    return Bench(options, model, limits, serve, corpus, source, work, peer_model)


def echoed(options: argparse.Namespace) -> Bench:
    """The bench with the echo server: 4 kB documents and a tokenizer of a Llama's kind, no weights."""
    if options.pages is None:
        raise SystemExit("--pages: the host part needs real pages, JSON lines with `lines`")
    model = bpe_model(options.pages, options.work / "models")
    echo = [sys.executable, str(peers.TOOLS / "echo_server.py"), "--kept", "0.6"]
    echo += [f"--programs={program}" for program in ECHO_PROGRAMS]
    serve: dict[str, Any] = {"device": "cpu", "max_total_tokens": 1 << 20, "command": echo}
    serve |= {"requests_in_flight": options.host_in_flight} | options.serve
    corpus = options.work / f"corpus-host-{options.host_documents}-{options.host_block}-{options.pages.stem}"
    loaded = tokens.load(str(model))
    texts = fitting(page_texts(options.pages), loaded, HOST_LIMITS)
    source = write_corpus(corpus, texts, options.host_documents, options.host_block)
    work = make_work(loaded, HOST_LIMITS, read_corpus(corpus))
    return Bench(options, model, HOST_LIMITS, serve, corpus, source, work)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["engine", "datatrove", "ablations", "score"])
    parser.add_argument("--model", type=Path, help="folder of a trained refiner")
    parser.add_argument("--prompt", choices=TEMPLATES, default="tags", help="for which it was trained")
    parser.add_argument("--peer-model", type=Path, help=f"datatrove: a refiner trained for --prompt {TWO_PROMPTS}")
    parser.add_argument("--max-chunk-tokens", type=int, default=Limits.max_chunk_tokens)
    parser.add_argument("--size", choices=SIZES, default="30m", help="to which it is grown")
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--block", type=int, default=200, help="documents per block")
    parser.add_argument("--kept", type=float, default=0.5, help="share of documents that the doc stage is to keep")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=Path, help="JSON lines with `lines`, perhaps .zst (default: the generated web)")
    parser.add_argument("--in-flight", type=int, default=32, help="requests in flight and running on every side")
    parser.add_argument("--jobs", nargs="+", choices=("doc", "both"), default=["doc", "both"], help="datatrove: which")
    parser.add_argument("--generations", type=int, nargs="+", default=GENERATIONS, help="tried for datatrove")
    parser.add_argument("--per-length", type=int, default=48, help="score: documents of each length")
    parser.add_argument("--host-documents", type=int, default=10_000)
    parser.add_argument("--host-block", type=int, default=2_500)
    parser.add_argument("--host-in-flight", type=int, default=128)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4], help="gpu: servers per GPU")
    parser.add_argument("--peak-tflops", type=float, help="of one GPU in the served precision (H200 bf16: 989)")
    parser.add_argument("--cores", type=int, default=2, help="all processes share so many cores")
    parser.add_argument("--refiner", type=json.loads, default={}, help="JSON: further settings of the refiner")
    parser.add_argument("--serve", type=json.loads, default={}, help="JSON: further settings of its servers")
    parser.add_argument("--work", type=Path, default=Path("outputs/bench_refine"), help="folder for all that is made")
    parser.add_argument("--peers", type=Path, default=Path("outputs/bench_refine/peers"), help="their environments")
    parser.add_argument("--profile", action="store_true", help="sample the refine step's threads")
    parser.add_argument("--json-only", action="store_true", help="no progress on stderr")
    options = parser.parse_args(arguments)
    options.work, options.peers = options.work.resolve(), options.peers.resolve()
    options.pages = options.pages.resolve() if options.pages else None
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    with redirect_stdout(sys.stderr):  # DeepSpeed, which transformers imports, says there that it has found no GPU
        result = measured(options)
    print(json.dumps(result, indent=1))
    return 0


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All parts asked for."""
    for name in ("stores", "logs"):  # of an earlier run: datatrove would take its own for finished work
        shutil.rmtree(options.work / name, ignore_errors=True)
    used = cores(options.cores)
    result: dict[str, Any] = {"machine": machine() | {"cores_used": len(used)}, "rounds": options.rounds}
    real = [name for name in options.parts if name != "host"]
    if real:
        bench = served(options)
        loaded = tokens.load(str(bench.model))
        result["setting"] = {"documents": options.documents, "parameters": loaded.parameters, "serve": bench.serve}
        result["setting"] |= {"tokens": bench.work.tokens("doc") | bench.work.tokens("chunk"), **asdict(bench.limits)}
        if NEED_KEPT & set(real):
            bench.find_kept()
        for name in real:
            result[name] = PARTS[name](bench)
    if "host" in options.parts:
        bench = echoed(options)
        result["host"] = part_host(bench)
        result["host"]["setting"] = {"documents": options.host_documents, **asdict(bench.limits), "serve": bench.serve}
    return result


if __name__ == "__main__":
    sys.exit(main())
