"""From a configuration to the DAG of steps. Pure: what it needs from the disk (the files of a corpus) is passed in.

    corpus -> [refine] -> programs -> [execute] -> an arm's corpus -> [tokenize] -> [pretrain] -> [evaluate] -> [report]
           -> [pilot] -> threshold of [refine] and [execute], where a share of the documents is to be kept
              [filter] ------------------------> an arm's corpus ->    (same)
              [classifier] -> [classify] -> [execute] ->    (same)
    seed corpus -> [tokenizer] -> [labels] -> [adapt] -> refiner

A step's configuration holds only what changes its products, so that studies and sweep points share what they have in
common; how it runs (device, server command, ranks) goes into `runtime`.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

from prox_hpc.config import (
    HOW_TRAINING_RUNS,
    Arm,
    Checks,
    Cluster,
    Config,
    Corpus,
    Evaluation,
    Refiner,
    Report,
    Training,
)
from prox_hpc.errors import UserError
from prox_hpc.task import REVISION, Step

# Held-out pages and their facts' questions come from their own seed, far from any corpus seed a user would write.
HELD_OUT_SEED = 1_000_003

RULES = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
PROFILES = ("v1", "deletion_only", "prox_v1")  # of the program language
MATCHED = ("random", "classifier")  # kinds of arms that keep as many documents as another one

_NAME = re.compile(r"\w[\w.,=+-]*")

_CHOICES = {
    "corpus.kind": ("generated", "files"),
    "refiner.seed_corpus.kind": ("generated", "files"),
    "refiner.serve.device": ("cpu", "cuda"),
    "refiner.serve.dtype": ("auto", "half", "float16", "bfloat16", "float", "float32"),  # SGLang's
    "cluster.backend": ("local", "slurm"),
    "cluster.device": ("cpu", "cuda"),
    "cluster.assignment": ("leased", "static"),
    "evaluation.keep_checkpoints": ("all", "last", "none"),
    "refiner.layout": ("fused", "shared", "phased"),
    "refiner.quarantine": ("unrefined", "dropped"),
    "report.prorate": ("none", "run", "pool"),
}
"""Settings that are one of a few words (or null, where the schema allows it)."""
_LOWEST: dict[str, float] = {
    "cluster.slots": 1,
    "cluster.array_parallelism": 1,
    "cluster.successors": 0,
    "cluster.grace_s": 0,
    "cluster.lease_s": 10,  # renewed every quarter of it, over a network filesystem
    **{
        f"{corpus}.{key}": lowest
        for corpus in ("corpus", "refiner.seed_corpus")
        for key, lowest in (
            ("seed", 0),
            ("documents", 1),
            ("blocks", 0),
            ("tasks", 1),
            ("limit", 1),
            ("block_documents", 1),
            ("allow_failed_blocks", 0),
        )
    },
    "evaluation.documents": 1,
    "evaluation.items": 1,
    "evaluation.array": 1,
    "evaluation.batch_size": 1,
    "refiner.max_chunk_tokens": 1,
    "refiner.max_doc_tokens": 1,
    "refiner.max_new_tokens": 1,
    "refiner.parameters": 1,
    "refiner.lm_weight": 0,
    "refiner.chunk_margin": 0,
    "refiner.pilot_documents": 100,  # there the standard error of the share kept is up to 5 points
    "refiner.max_quarantined": 0,
    "refiner.serve.replicas": 1,
    "refiner.serve.requests_in_flight": 1,
    "refiner.serve.max_in_flight": 1,
    "refiner.serve.batch_requests": 1,
    "refiner.serve.chunked_prefill_tokens": 1,
    "refiner.serve.max_total_tokens": 1,
    "refiner.serve.start_timeout_s": 1,
    "refiner.serve.request_timeout_s": 1,
    "refiner.serve.stall_timeout_s": 1,
    "refiner.serve.restarts": 0,
    "report.annotation_flops": 0,
    "report.base_tokens": 0,
    "report.sft_tokens": 0,
    "report.alarms.doc_f1": 0,
    "report.alarms.line_f1": 0,
    "report.alarms.failed_programs": 0,
    "report.alarms.quarantined": 0,
    "report.alarms.score_drop": 0,
    "report.alarms.epochs": 0,
}
"""The least value of settings (null passes)."""

Files = Callable[[Corpus], dict[str, Any]]
"""Lists and checks the files of a corpus: -> the plain `source` description of `prox_hpc.corpus.files.plan_files`."""

Identify = Callable[[str], dict[str, Any] | None]
"""What tells one state of a model folder from another ({file: [size, mtime]}); None for a hub name."""

Examine = Callable[[Evaluation], dict[str, Any]]
"""Checks the names of evaluation tasks and their data; -> what tells one state of the data from another."""


@dataclass(frozen=True)
class Source:
    """Where a step reads documents: a published corpus (address) or the user's files (description)."""

    blocks: int
    address: str | None = None
    files: dict[str, Any] | None = None

    def inputs(self) -> dict[str, str]:
        return {"corpus": self.address} if self.address else {}

    def config(self) -> dict[str, Any]:
        return {"source": self.files} if self.files else {}


@dataclass(frozen=True)
class Plan:
    """The steps of a study in an order in which every step follows its inputs; the report is last."""

    steps: tuple[Step, ...]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @property
    def addresses(self) -> set[str]:
        return {step.address for step in self.steps}


@dataclass
class _Builder:
    config: Config
    files: Files
    count_blocks: Callable[[dict[str, Any]], int]
    identify: Identify
    evaluation_data: dict[str, Any]
    steps: dict[str, Step] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)

    def add(self, step: Step, role: str | None = None) -> Step:
        self.steps.setdefault(step.address, step)
        if role:
            self.roles[role] = step.address
        return step

    def described(self, corpus: Corpus, section: str) -> dict[str, Any]:
        """The files of a corpus; what is wrong with them is told by the keys of its section of the configuration."""
        try:
            return self.files(corpus)
        except UserError as error:
            told = str(error).replace("corpus.", f"{section}.", 1)
            if section == "evaluation":  # it may have no unreadable file
                told = told.partition(", or go on without")[0]
            raise UserError(told) from error

    def source(self, corpus: Corpus, sites: str, role: str) -> Source:
        if corpus.kind == "files":
            described = self.described(corpus, "refiner.seed_corpus" if role == "seed" else role)
            return Source(self.count_blocks(described), files=described)
        blocks = corpus.blocks or 1
        config = {"documents": corpus.documents, "blocks": blocks, "seed": corpus.seed, "sites": sites}
        step = Step("generate", corpus.name, config, tasks=min(corpus.tasks, blocks))
        return Source(blocks, address=self.add(step, role).address)

    def models(self, *names: str | None) -> dict[str, Any]:
        """For a step's configuration: the present state of the model folders it reads ({} for hub names)."""
        states = {name: self.identify(name) for name in names if name}
        found = {name: state for name, state in states.items() if state is not None}
        return {"model_files": found} if found else {}

    def processes(self, kind: str) -> int:
        asked = self.config.cluster.ask(kind)
        return asked.nodes * asked.processes


def plan_study(
    config: Config,
    files: Files,
    count_blocks: Callable[[dict[str, Any]], int],
    identify: Identify = lambda name: None,
    examine: Examine = lambda evaluation: {},
) -> Plan:
    """The whole DAG of a study. Raises UserError where the configuration contradicts itself."""
    check(config)
    build = _Builder(config, files, count_blocks, identify, examine(config.evaluation))
    corpus = build.source(config.corpus, "test", "corpus")
    tasks = max(1, min(config.corpus.tasks, corpus.blocks))
    tokenizer, refiner = _refiner(build)
    if any(arm.kind == "refined" for arm in config.arm.values()):
        if _piloted(config):
            build.add(_pilot(build, corpus, refiner), "pilot")
        refine = build.add(_refine(build, corpus, refiner, tasks), "refine")
        if config.corpus.kind == "generated" or config.corpus.keep_column:
            inputs = {**corpus.inputs(), "programs": refine.address}
            build.add(Step("score", refine.name, corpus.config(), inputs), "score")
    held_out = build.add(_held_out(build), "heldout") if config.evaluation.kind != "none" else None
    for name, arm in _in_order(config.arm):
        arm_corpus = _arm_corpus(build, name, arm, corpus, tasks)
        tokens = build.add(_tokenize(build, name, arm_corpus, tokenizer, tasks), f"tokens/{name}")
        for seed in config.seeds:
            _train_and_evaluate(build, f"{name}/seed{seed}", seed, tokens, tokenizer, held_out)
    report = {
        "study": asdict(config),
        "steps": {a: {k: getattr(s, k) for k in ("kind", "name", "inputs", "tasks")} for a, s in build.steps.items()},
    }
    report["study"].pop("cluster")  # where it runs does not make it another report
    for key in ("dry_run", "output", "store"):
        report["study"].pop(key)
    # what its tasks were given, for hours by the wall clock where Slurm keeps no accounts
    runtime = {"run_dir": config.run_dir, "resources": asdict(config.cluster)["resources"]}
    build.add(Step("report", config.name, report, dict(build.roles), always=True, runtime=runtime))
    return Plan(tuple(build.steps.values()))


def check(config: Config) -> None:
    """Contradictions that the schema cannot see. Raises UserError."""
    _check_keys("", config)
    _check_values(config)
    if config.corpus.kind == "files" and not config.corpus.path:
        raise UserError("corpus.path is not set; give a file, a folder, a glob or an fsspec URL: corpus.path=PATH")
    if config.evaluation.kind not in ("world", "files", "none"):
        raise UserError(f"evaluation.kind={config.evaluation.kind}: unknown; one of world, files, none")
    if config.refiner.seed_corpus.kind == "files" and not config.refiner.seed_corpus.path:
        raise UserError("refiner.seed_corpus.path is not set; give documents with line flags")
    if config.evaluation.kind == "files" and not config.evaluation.path:
        raise UserError("evaluation.path is not set; give held-out documents with line flags: evaluation.path=PATH")
    for key, kind, path in (
        ("corpus", config.corpus.kind, config.corpus.path),
        ("evaluation", config.evaluation.kind, config.evaluation.path),
    ):
        if path and kind != "files":
            raise UserError(f"{key}.path={path}: with {key}.kind={kind} no file is read; add {key}=files")
    if not config.arm:
        raise UserError("arm: no arm is chosen; e.g. arm=[raw,prox_dc]")
    for name, arm in config.arm.items():
        if arm.kind not in (kinds := ("raw", "rule", "refined", "gold", *MATCHED)):
            raise UserError(f"arm.{name}.kind={arm.kind}: unknown; one of {', '.join(kinds)}")
        unknown = sorted(set(arm.rules) - set(RULES))
        if unknown or (arm.kind == "rule" and not arm.rules):
            raise UserError(f"arm.{name}.rules={arm.rules}: give one or more of {', '.join(RULES)}")
        if arm.kind in MATCHED:
            _check_matched(config, name, arm)
        if arm.kind == "gold" and config.corpus.kind == "files" and not config.corpus.keep_column:
            raise UserError(f"arm.{name}: the corpus has no gold; set corpus.keep_column or leave the arm out")
        if arm.kind == "refined":
            _check_refined(config, name, arm)
    _check_retention(config)
    _check_models(config)
    _check_layout(config)
    refined = any(arm.kind == "refined" for arm in config.arm.values())
    check_charges(config.report, given=refined and not config.refiner.train)
    if not config.seeds:
        raise UserError("seeds: at least one trainee seed is needed; e.g. seeds=[1,2]")
    if min(config.seeds) < 0:
        raise UserError(f"seeds={config.seeds}: must be 0 or more")
    if len(set(config.seeds)) != len(config.seeds):
        raise UserError(f"seeds={config.seeds}: a seed stands twice; the second run would be the first")


def _check_keys(prefix: str, section: Any) -> None:
    """All keys must be known (`+key=value` adds any, and nothing would read it), no text may be empty, and names, which
    become those of files and jobs, must be fit for it.
    """
    for key, value in vars(section).items():
        if key not in type(section).__dataclass_fields__:
            raise UserError(f"{prefix}{key}: no such key; `python -m prox_hpc.launch --cfg job` prints all")
        if is_dataclass(value):
            _check_keys(f"{prefix}{key}.", value)
        elif value == "":
            raise UserError(f"{prefix}{key}=: is empty; give a value or leave it out")
        elif key == "name" and not _NAME.fullmatch(value):
            raise UserError(
                f"{prefix}name={value}: is no name for files; it may have letters, digits and any of _.,=+-, the first "
                "being a letter or digit"
            )


def _check_matched(config: Config, name: str, arm: Arm) -> None:
    """The arm that an arm is to be like must have something to match and, for a classifier, to learn from."""
    if arm.like not in config.arm:
        raise UserError(f"arm.{name}.like={arm.like}: that arm is not in the study; add it: arm=[...,{arm.like}]")
    like = config.arm[arm.like]
    if like.kind in ("raw", *MATCHED):
        raise UserError(f"arm.{name}.like={arm.like}: has no retention to match; give a rule, refined or gold arm")
    if arm.kind != "classifier":
        return
    if arm.examples < 100:  # a tenth is kept back to measure it
        raise UserError(f"arm.{name}.examples={arm.examples}: must be 100 or more")
    if not _has_gold_verdicts(config.refiner) and like.kind == "refined" and not like.doc:
        raise UserError(
            f"arm.{name}.like={arm.like}: it keeps nearly all documents, so a classifier learns nothing from it; give "
            "an arm with a doc stage or rules, or a generated seed corpus"
        )


def _has_gold_verdicts(refiner: Refiner) -> bool:
    """Whether there is a seed corpus that says which documents are junk; line flags alone do not."""
    seed = refiner.seed_corpus
    return refiner.train and (seed.kind == "generated" or seed.drop_below is not None)


def _check_refined(config: Config, name: str, arm: Arm) -> None:
    """Settings of the program language that cannot be meant."""
    refiner = config.refiner
    for key, profile in ((f"arm.{name}.profile", arm.profile), ("refiner.profile", refiner.profile)):
        if profile not in PROFILES:
            raise UserError(f"{key}={profile}: unknown; one of {', '.join(PROFILES)}")
    if arm.doc and refiner.train and not _has_gold_verdicts(refiner):
        raise UserError(
            f"arm.{name}: its doc stage would be asked of a refiner that learns no verdicts from line flags; set "
            "refiner.seed_corpus.drop_below (e.g. 0.3, see prox_hpc/config.py) or choose arms without it, as prox_c"
        )
    for key, threshold in ((f"arm.{name}", arm.doc_threshold), ("refiner", refiner.doc_threshold)):
        if threshold is not None and not math.isfinite(threshold):
            raise UserError(f"{key}.doc_threshold={threshold}: must be a number, e.g. 0")
    answers = refiner.doc_answers
    if len(answers) != 2 or answers[0].startswith(answers[1]) or answers[1].startswith(answers[0]):
        raise UserError(
            f"refiner.doc_answers={answers}: give two answers, keep and drop, neither of which begins with the other"
        )
    lowest = refiner.doc_threshold - refiner.chunk_margin
    everything = any(other.kind == "refined" and other.chunk and not other.doc for other in config.arm.values())
    known = refiner.doc_retention is None  # else the pilot sets it, and executing refuses what was not programmed
    if known and arm.doc and arm.chunk and not everything and _first(arm.doc_threshold, lowest) < lowest:
        raise UserError(
            f"arm.{name}.doc_threshold={arm.doc_threshold}: documents that score below {lowest} get no chunk programs; "
            f"set refiner.chunk_margin={refiner.doc_threshold - arm.doc_threshold:g} or more"  # type: ignore[operator]
        )
    for key, value in asdict(refiner.caps).items():
        if not value >= (0 if key.startswith("growth") else 1):
            raise UserError(f"refiner.caps.{key}={value}: must be positive")
    for key, checks in (("refiner.checks", refiner.checks), (f"arm.{name}.checks", _checks(arm, refiner))):
        if not checks.max_removed > 0 or checks.min_words < 0:
            raise UserError(f"{key}={asdict(checks)}: max_removed must be above 0 and min_words not below 0")


def _check_values(config: Config) -> None:
    """Words nobody knows, and numbers out of range."""
    for key, choices in _CHOICES.items():
        value = _setting(config, key)
        if value is not None and value not in choices:
            raise UserError(f"{key}={value}: unknown; one of {', '.join(choices)}")
    for key, lowest in _LOWEST.items():
        value = _setting(config, key)
        if value is not None and not value >= lowest:  # so that NaN is refused as well
            raise UserError(f"{key}={value}: must be {lowest:g} or more")
    _check_resources(config.cluster)
    for key, example in (
        ("corpus.drop_below", 0.3),
        ("refiner.seed_corpus.drop_below", 0.3),
        ("refiner.doc_retention", 0.3),
        ("refiner.serve.mem_fraction", 0.8),
    ):
        value = _setting(config, key)
        if value is not None and not 0 < value < 1:
            raise UserError(f"{key}={value}: must be between 0 and 1, e.g. {example}")
    for key, corpus in (("corpus", config.corpus), ("refiner.seed_corpus", config.refiner.seed_corpus)):
        if corpus.drop_below is not None and not (corpus.kind == "files" and corpus.keep_column):
            raise UserError(f"{key}.drop_below={corpus.drop_below}: needs files with line flags; set {key}.keep_column")
    port = config.refiner.serve.port
    if port is not None and not 0 < port < 1 << 16:
        raise UserError(f"refiner.serve.port={port}: must be between 1 and 65535; leave it out for a free one")
    peak, cluster = config.cluster.peak_tflops, config.cluster
    if peak is not None and not peak > 0:
        raise UserError(f"cluster.peak_tflops={peak}: must be above 0; null tells no share of the peak")
    if cluster.successors and cluster.assignment == "static":
        raise UserError(
            f"cluster.successors={cluster.successors}: static tasks keep to their share, so nothing is left to take; "
            "use cluster.assignment=leased"
        )
    ask = config.cluster.ask("refine")
    if cluster.backend == "slurm" and cluster.grace_s >= 60 * ask.time_min:
        raise UserError(
            f"cluster.grace_s={cluster.grace_s}: is all of the {ask.time_min} min of a refine task; "
            "lower it or raise cluster.resources.refine.time_min"
        )


def _check_resources(cluster: Cluster) -> None:
    """What each kind of step asks for must be something, and the kind be one that there is."""
    for kind, ask in cluster.resources.items():
        if kind not in (known := ("default", *REVISION)):
            raise UserError(f"cluster.resources.{kind}: no such kind of step; one of {', '.join(known)}")
        for key, lowest in (("nodes", 1), ("processes", 1), ("cpus", 1), ("time_min", 1), ("gpus", 0)):
            if getattr(ask, key) < lowest:
                raise UserError(f"cluster.resources.{kind}.{key}={getattr(ask, key)}: must be {lowest} or more")
        if not 0 < ask.mem_gb < math.inf:
            raise UserError(f"cluster.resources.{kind}.mem_gb={ask.mem_gb}: must be above 0")


def check_charges(report: Report, given: bool) -> None:
    """given: the study has a refiner it did not make. UserError when a row is charged that nobody measured."""
    for row, figure in (("annotation", "annotation_flops"), ("base_training", "base_tokens")):
        if given and getattr(report.charge, row) and getattr(report, figure) is None:
            raise UserError(
                f"report.charge.{row}=true: nobody measured it for a refiner that is given; set report.{figure}"
            )


def _setting(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _check_retention(config: Config) -> None:
    refiner = config.refiner
    if refiner.doc_retention is not None and refiner.doc_threshold != Refiner.doc_threshold:
        raise UserError(
            f"refiner.doc_threshold={refiner.doc_threshold}: with refiner.doc_retention={refiner.doc_retention} the "
            "pilot sample sets the threshold; leave out one of the two"
        )
    gpus = config.cluster.ask("refine").gpus
    if _piloted(config) and gpus and not config.cluster.ask("pilot").gpus:  # a site's own file may know no pilot yet
        raise UserError(
            f"cluster.resources.pilot: asks for no GPU, refine for {gpus}; write into your cluster file's resources: "
            "`pilot: { gpus: 1, cpus: 8, mem_gb: 64 }` (refiner.doc_retention needs it)"
        )


def _check_layout(config: Config) -> None:
    refiner = config.refiner
    refined = [arm for arm in config.arm.values() if arm.kind == "refined"]
    if not (any(arm.doc for arm in refined) and any(arm.chunk for arm in refined)):
        return  # only one stage runs: there is nothing to lay out
    two = not refiner.train and refiner.doc_model != refiner.chunk_model
    if refiner.layout == "fused" and two:
        raise UserError(
            f"refiner.layout=fused: refiner.doc_model={refiner.doc_model} and refiner.chunk_model="
            f"{refiner.chunk_model} are two models; use shared or phased, or leave it out"
        )
    if refiner.layout == "shared" and not two:
        raise UserError("refiner.layout=shared: both stages have the same model; use fused, or leave it out")


def _check_models(config: Config) -> None:
    refiner, trainee = config.refiner, config.trainee
    refined = any(arm.kind == "refined" for arm in config.arm.values())
    given = [key for key in ("doc_model", "chunk_model") if getattr(refiner, key)]
    if refined and refiner.train and given:
        raise UserError(
            f"refiner.{given[0]}={getattr(refiner, given[0])}: with refiner.train=true the study makes its own"
        )
    if refined and not refiner.train and len(given) < 2:
        raise UserError(
            f"refiner={refiner.name}: needs refiner.doc_model and refiner.chunk_model (folders or hub names, "
            "may be the same); refiner=nano makes its own"
        )
    if trainee.model and not trainee.tokenizer:
        raise UserError(
            f"trainee.tokenizer: trainee.model={trainee.model} is trained further, so the corpus must be read with its "
            f"own tokenizer; set trainee.tokenizer={trainee.model}"
        )
    if not refiner.train and trainee.tokenizer is None:
        raise UserError(
            "trainee.tokenizer: must be given (folder or hub name), since a study makes its own only with a refiner of "
            f"its own (refiner=nano); e.g. the given refiner's: trainee.tokenizer={refiner.chunk_model or 'FOLDER'}"
        )
    if trainee.tokenizer is None and trainee.shape.vocab_size != refiner.shape.vocab_size:
        raise UserError(
            f"trainee.tokenizer: must be given (folder or hub name), since trainee.shape.vocab_size="
            f"{trainee.shape.vocab_size} is not the size of the study's own ({refiner.shape.vocab_size})"
        )


def _in_order(arms: dict[str, Arm]) -> list[tuple[str, Arm]]:
    """Arms that match another one's retention come after it."""
    return sorted(arms.items(), key=lambda item: item[1].kind in MATCHED)


def _refiner(build: _Builder) -> tuple[Step | None, Step | None]:
    """The study's own tokenizer and refiner, where it needs them: -> (tokenizer step, adapt step)."""
    config, refiner = build.config, build.config.refiner
    made_here = refiner.train and any(arm.kind == "refined" for arm in config.arm.values())
    if not made_here and config.trainee.tokenizer:
        return None, None
    seed, vocabulary = build.source(refiner.seed_corpus, "train", "seed"), refiner.shape.vocab_size
    tokenizer = build.add(
        Step("tokenizer", f"bpe{vocabulary}", {"vocab_size": vocabulary, **seed.config()}, seed.inputs()), "tokenizer"
    )
    if not made_here:
        return tokenizer, None
    settings = {k: getattr(refiner, k) for k in ("prompt", "max_chunk_tokens", "max_doc_tokens", "doc_answers")}
    labels = Step(
        "labels", refiner.name, {**settings, **seed.config()}, {**seed.inputs(), "tokenizer": tokenizer.address}
    )
    build.add(labels, "labels")
    training, runtime = _training(config, refiner.training)
    adapt = Step(
        "adapt",
        refiner.name,
        {
            "prompt": refiner.prompt,
            "shape": asdict(refiner.shape),
            "training": training,
            "lm_weight": refiner.lm_weight,
            "seed": refiner.seed_corpus.seed,
        },
        {"labels": labels.address, "tokenizer": tokenizer.address},
        processes=build.processes("adapt"),
        runtime=runtime,
    )
    return tokenizer, build.add(adapt, "adapt")


def _piloted(config: Config) -> bool:
    """Whether a pilot sample sets the doc threshold."""
    return config.refiner.doc_retention is not None and any(a.kind == "refined" and a.doc for a in config.arm.values())


def _pilot(build: _Builder, corpus: Source, refiner: Step | None) -> Step:
    config = build.config
    keys = ("prompt", "doc_answers", "max_doc_tokens", "doc_model", "doc_retention", "pilot_documents")
    settings = asdict(config.refiner)
    meaning = {
        "refiner": {key: settings[key] for key in keys},
        "precision": _precision(settings),
        "doc_stage": True,
        "chunk_stage": False,
        "seed": config.corpus.seed,  # of the sample
        **corpus.config(),
        **build.models(config.refiner.doc_model),
    }
    inputs = {**corpus.inputs(), **({"refiner": refiner.address} if refiner else {})}
    runtime = {"serve": settings["serve"], "max_quarantined": settings["max_quarantined"]}
    return Step("pilot", f"{config.corpus.name}-{config.refiner.name}", meaning, inputs, runtime=runtime)


def _precision(refiner: dict[str, Any]) -> dict[str, Any]:
    """What of the serving changes scores and programs."""
    return {key: refiner["serve"][key] for key in ("dtype", "quantization")}


def _refine(build: _Builder, corpus: Source, refiner: Step | None, tasks: int) -> Step:
    config = build.config
    refined = [arm for arm in config.arm.values() if arm.kind == "refined"]
    keys = ["prompt", "doc_answers", "profile", "max_chunk_tokens", "max_doc_tokens", "max_new_tokens", "quarantine"]
    keys += ["doc_threshold", "doc_retention", "chunk_margin", "constrained", "doc_model", "chunk_model"]
    keys += ["caps", "checks"]
    settings = asdict(config.refiner)
    piloted = _piloted(config)
    settings["doc_threshold" if piloted else "doc_retention"] = None
    meaning = {
        "refiner": {key: settings[key] for key in keys},
        "precision": _precision(settings),
        "doc_stage": any(arm.doc for arm in refined),
        "chunk_stage": any(arm.chunk for arm in refined),
        "program_all": any(arm.chunk and not arm.doc for arm in refined),
        **corpus.config(),
        **build.models(config.refiner.doc_model, config.refiner.chunk_model),
    }
    inputs = {**corpus.inputs(), **({"refiner": refiner.address} if refiner else {})}
    if piloted:
        inputs["pilot"] = build.roles["pilot"]
    runtime = {key: settings[key] for key in ("serve", "layout", "max_quarantined")}
    runtime |= {key: getattr(config.cluster, key) for key in ("assignment", "lease_s", "grace_s", "peak_tflops")}
    return Step("refine", f"{config.corpus.name}-{config.refiner.name}", meaning, inputs, tasks=tasks, runtime=runtime)


def _held_out(build: _Builder) -> Step:
    evaluation = build.config.evaluation
    if evaluation.kind == "world":
        seed = HELD_OUT_SEED + build.config.corpus.seed
        config = {"kind": "world", "documents": evaluation.documents, "items": evaluation.items, "seed": seed}
        return Step("heldout", evaluation.name, config)
    held_out = Corpus(name=evaluation.name, kind="files", path=evaluation.path, limit=evaluation.documents)
    held_out.text_column, held_out.keep_column = evaluation.text_column, evaluation.keep_column
    return Step("heldout", evaluation.name, {"kind": "files", "source": build.described(held_out, "evaluation")})


def _arm_corpus(build: _Builder, name: str, arm: Arm, corpus: Source, tasks: int) -> Source:
    """The documents of an arm: the raw corpus itself, or the product of a filter or execute step over it."""
    config = build.config
    if arm.kind == "raw":
        return corpus
    meaning, inputs = dict(corpus.config()), corpus.inputs()
    if arm.kind == "rule":
        step = Step("filter", name, {**meaning, "rules": arm.rules}, inputs, tasks=tasks)
    else:
        settings: dict[str, Any] = {"kind": arm.kind}
        if arm.kind == "refined":
            settings |= {"doc": arm.doc, "chunk": arm.chunk, "profile": arm.profile}
            settings["doc_threshold"] = _first(arm.doc_threshold, config.refiner.doc_threshold)
            if arm.doc and arm.doc_threshold is None and _piloted(config):
                settings |= {"doc_threshold": None, "doc_retention": config.refiner.doc_retention}
                inputs["pilot"] = build.roles["pilot"]
            settings |= {"checks": asdict(_checks(arm, config.refiner)), "caps": asdict(config.refiner.caps)}
            settings["quarantine"] = config.refiner.quarantine
            inputs |= {"programs": build.roles["refine"]}
        if arm.kind == "random":
            settings["seed"] = config.corpus.seed
            inputs |= {"like": build.roles[f"arm/{arm.like}"]}
        if arm.kind == "classifier":
            inputs |= {"scores": _scores(build, name, arm, corpus, tasks).address}
        step = Step("execute", name, {**meaning, "arm": settings}, inputs, tasks=tasks)
    return Source(corpus.blocks, address=build.add(step, f"arm/{name}").address)


def _scores(build: _Builder, name: str, arm: Arm, corpus: Source, tasks: int) -> Step:
    """A classifier's scores of the corpus. It learns from gold verdicts if there are any, else from the arm `like`."""
    config, like = build.config, build.roles[f"arm/{arm.like}"]
    gold = _has_gold_verdicts(config.refiner)
    learnt = build.source(config.refiner.seed_corpus, "train", "seed") if gold else corpus
    inputs = learnt.inputs() | ({} if gold else {"like": like})
    meaning = {**learnt.config(), "examples": arm.examples, "seed": config.corpus.seed}
    classifier = build.add(Step("classifier", name, meaning, inputs), f"classifier/{name}")
    inputs = {**corpus.inputs(), "classifier": classifier.address, "like": like}
    return build.add(Step("classify", name, corpus.config(), inputs, tasks=tasks), f"scores/{name}")


def _checks(arm: Arm, refiner: Refiner) -> Checks:
    """The arm's own checks, and the refiner's where it says nothing."""
    own = {key: value for key, value in asdict(arm.checks).items() if value is not None}
    return replace(refiner.checks, **own)


def _first(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _tokenize(build: _Builder, name: str, corpus: Source, tokenizer: Step | None, tasks: int) -> Step:
    config, inputs = build.config, corpus.inputs()
    if tokenizer and config.trainee.tokenizer is None:
        inputs |= {"tokenizer": tokenizer.address}
    meaning = {**corpus.config(), "tokenizer": config.trainee.tokenizer}
    meaning |= build.models(config.trainee.tokenizer)
    return Step("tokenize", name, meaning, inputs, tasks=tasks)


def _training(config: Config, training: Training) -> tuple[dict[str, Any], dict[str, Any]]:
    """A training run's settings that decide what comes of it, and the runtime of its step with the others."""
    settings, cluster = asdict(training), config.cluster
    how = {key: settings.pop(key) for key in HOW_TRAINING_RUNS}
    runtime = {key: getattr(cluster, key) for key in ("device", "peak_tflops", "grace_s")}
    return settings, {**runtime, "training": how}


def _train_and_evaluate(
    build: _Builder, name: str, seed: int, tokens: Step, tokenizer: Step | None, held_out: Step | None
) -> None:
    config = build.config
    trainee = config.trainee
    training, runtime = _training(config, trainee.training)
    meaning = {"shape": asdict(trainee.shape), "training": training, "seed": seed}
    meaning |= {"model": trainee.model, "tokenizer": trainee.tokenizer, **build.models(trainee.model)}
    inputs = {"tokens": tokens.address}
    if "tokenizer" in tokens.inputs and tokenizer:
        inputs |= {"tokenizer": tokenizer.address}
    label = f"{trainee.name}-{name.replace('/', '-')}"
    pretrain = Step("pretrain", label, meaning, inputs, processes=build.processes("pretrain"), runtime=runtime)
    build.add(pretrain, f"pretrain/{name}")
    evaluation, evaluations = config.evaluation, _evaluation_tasks(config)
    evaluate = Step(
        "evaluate",
        label,
        {"tasks": evaluation.tasks, "batch_size": evaluation.batch_size, "data": build.evaluation_data},
        {"pretrain": pretrain.address, **({"heldout": held_out.address} if held_out else {})},
        tasks=evaluations,
        runtime={
            "device": config.cluster.device,
            "data": evaluation.data,
            "keep_checkpoints": evaluation.keep_checkpoints,
            # the input whose end a task need not wait for; the one with the last checkpoint does
            **({"early": "pretrain"} if evaluation.while_training and evaluations > 1 else {}),
        },
    )
    build.add(evaluate, f"evaluate/{name}")


def _evaluation_tasks(config: Config) -> int:
    """Tasks of an evaluate step: no more than checkpoints are asked for (a short run may have fewer)."""
    checkpoints = max(1, config.trainee.training.checkpoints)
    each = 1 if config.cluster.backend == "local" else checkpoints
    return min(checkpoints, config.evaluation.array or each)
