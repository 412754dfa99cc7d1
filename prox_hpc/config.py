"""The schema of the whole configuration tree.

Hydra composes `conf/` onto these dataclasses, so an unknown key or a value of the wrong type fails while composing.
The attribute docs below are the reference of the settings; the YAML files carry only values. Everything here is plain
data: `prox_hpc.study.plan` turns it into steps.
"""

from dataclasses import dataclass, field
from typing import Any, Optional

MISSING: Any = "???"  # omegaconf's word for "must be given"; importing it would cost every worker 0.07 s


@dataclass
class Resources:
    """What one task of a step asks of the scheduler."""

    nodes: int = 1
    processes: int = 1
    """Ranks per node; more than one only for the DeepSpeed steps (`adapt`, `pretrain`): one per GPU."""
    cpus: int = 1
    """CPU cores per process; on one machine also the slots a task takes out of `cluster.slots`."""
    gpus: int = 0
    """GPUs per node."""
    mem_gb: float = 4
    """Memory per node."""
    time_min: int = 60


@dataclass
class Cluster:
    """Where steps run."""

    backend: str = "local"
    """`local` (this machine, bounded concurrency) or `slurm` (submitit)."""
    device: str = "cpu"
    """Device of the DeepSpeed steps and of evaluation: `cpu` or `cuda`."""
    slots: int = 2
    """local: CPU cores to fill; a task takes `processes * cpus` of them."""
    account: Optional[str] = None
    partition: Optional[str] = None
    qos: Optional[str] = None
    array_parallelism: int = 256
    """slurm: tasks of one array that may run at once."""
    modules: list[str] = field(default_factory=list)
    """slurm: `module load` lines put before every task."""
    setup: list[str] = field(default_factory=list)
    """slurm: further shell lines put before every task."""
    container: Optional[str] = None
    """slurm: command prefix of every task, e.g. `apptainer exec --nv image.sif`."""
    python: Optional[str] = None
    """Interpreter of the tasks; default: the one that runs `launch`."""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """slurm: extra sbatch options, e.g. {constraint: a100, exclusive: true}."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables of every task."""
    requeue: bool = True
    """slurm: whether Slurm may start an interrupted job again; where sites forbid it, use `successors`."""
    successors: int = 0
    """slurm: tasks that take what is left of an array when some of its tasks failed or ran out of time."""
    grace_s: int = 90
    """slurm: seconds before its end at which a task is told to finish (sbatch --signal)."""
    assignment: str = "leased"
    """`leased`: tasks of a refine step take blocks as they come, also those of dead ones; `static`: every n-th."""
    lease_s: int = 300
    """leased: a block whose task gave no sign of life for so long is free again."""
    peak_tflops: Optional[float] = None
    """Peak dense TFLOP/s of a device in the precision used (H100, H200 in bf16: 989), for the shares of it that
    refining and training reach; null: no share is told."""
    resources: dict[str, Resources] = field(default_factory=dict)
    """Per kind of step, `default` for the others."""

    def ask(self, kind: str) -> Resources:
        """What a task of this kind of step asks for."""
        return self.resources.get(kind) or self.resources.get("default") or Resources()

    def key(self, kind: str) -> str:
        """Where that is set."""
        return f"cluster.resources.{kind if kind in self.resources else 'default'}"


@dataclass
class Corpus:
    """A named source of documents."""

    name: str = MISSING
    kind: str = MISSING
    """`generated` (the seeded web with known truth) or `files`."""
    blocks: int = 0
    """generated: number of blocks; files: 0 = one block per file (or per `block_documents` rows of Parquet)."""
    tasks: int = 1
    """Array size of the steps that work on the corpus (at most one task per block)."""
    limit: Optional[int] = None
    """files: only the first so many documents of each file."""
    # generated
    documents: int = 2000
    """generated: size in documents."""
    seed: int = 0
    # files
    path: Optional[str] = None
    """files: a file, folder, glob or fsspec URL of JSONL, JSONL.gz, JSONL.zst or Parquet."""
    text_column: str = "text"
    """files: a string column, or a list-of-lines column (joined by newline)."""
    id_column: str = "id"
    """files: when a record lacks it, `file name:row` is the id."""
    keep_column: Optional[str] = None
    """files: one truth value per line (true = main content); gives gold programs."""
    drop_below: Optional[float] = None
    """files, with `keep_column`: a document of whose words a smaller share is main content counts as junk, which gives
    gold verdicts; null: none."""
    block_documents: int = 5000
    """files: rows of Parquet per block."""
    allow_failed_blocks: int = 0
    """files: blocks that may be unreadable before the steps that read them fail."""


@dataclass
class Shape:
    """A Llama-family architecture (transformers' names)."""

    hidden_size: int = 128
    intermediate_size: int = 344
    num_hidden_layers: int = 4
    num_attention_heads: int = 2
    num_key_value_heads: int = 2
    vocab_size: int = 2048
    max_position_embeddings: int = 256
    tie_word_embeddings: bool = False
    architecture: str = "llama"
    """`llama` or `gpt_neox` (Pythia)."""


@dataclass
class Training:
    """One DeepSpeed training run."""

    tokens: int = 400_000
    """Tokens to train on (SFT: prompt and program tokens)."""
    context: int = 256
    """Tokens per sequence."""
    batch_tokens: int = 8192
    """Tokens per optimiser step over all ranks, a multiple of `micro_batch * context * ranks`."""
    micro_batch: int = 16
    """Sequences per rank and forward pass."""
    learning_rate: float = 3e-3
    min_learning_rate: float = 3e-4
    warmup_steps: int = 20
    schedule: str = "cosine"
    """`cosine`, `wsd` (warm-up, constant, decay) or `constant`."""
    decay_steps: int = 0
    """wsd: steps of the final decay."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    grad_clip: float = 1.0
    dtype: str = "bf16"
    """`bf16` or `fp32`."""
    zero_stage: int = 1
    """DeepSpeed ZeRO stage; 0 with bf16 is refused (it takes a phantom optimiser step)."""
    compile: bool = False
    checkpoints: int = 4
    """Checkpoints exported on the way, evenly spaced, the last at the end."""
    schedule_tokens: Optional[int] = None
    """Tokens that the schedule of the learning rate is made for, where the run stops earlier; null: `tokens`."""
    activation_checkpointing: bool = False
    """Keep only the layers' inputs and compute the rest again in the backward pass: less memory, for one more
    forward pass (8 N D instead of 6 N D)."""
    save_minutes: float = 30
    """Save the state to resume from at least so often, beside every checkpoint; 0: only there and by `save_steps`."""
    save_steps: int = 0
    """Save it after every so many steps as well; 0: by the clock alone."""
    stall_timeout_s: int = 1800
    """A step, a checkpoint or a conversion of the saved state that takes longer ends the job and names the rank."""
    spike_steps: int = 20
    """End the job when the loss stays 7 standard deviations above its mean for so many steps in a row; 0: never."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """DeepSpeed's own settings, put over those that we make, e.g. {zero_optimization: {overlap_comm: true}}."""
    tracker: str = "tensorboard"
    """`tensorboard` (event files in the step's state folder), `wandb` (needs its package) or `none`."""


HOW_TRAINING_RUNS = (
    "micro_batch",
    "compile",
    "deepspeed",
    "activation_checkpointing",
    "save_minutes",
    "save_steps",
    "stall_timeout_s",
    "spike_steps",
    "tracker",
)
"""Settings of `Training` that decide how a run goes, not what comes of it but for rounding: they may change when it is
resumed, e.g. on twice the GPUs with half the `micro_batch`."""


@dataclass
class Serve:
    """The SGLang server of a refine task."""

    command: list[str] = field(default_factory=list)
    """How to start Python where sglang is installed, e.g. [apptainer, exec, --nv, sglang.sif, python3];
    empty: this interpreter, with the CPU recipe's side folder when the device is `cpu`."""
    device: str = "cpu"
    dtype: str = "bfloat16"
    arguments: list[str] = field(default_factory=list)
    """Further arguments of `sglang.launch_server`; they come last, so they win."""
    replicas: int = 1
    """Servers per GPU (per task on a CPU); small models are bound by the host, and two to four are worth a try."""
    pin_cores: bool = True
    """Give every server its own share of the task's cores."""
    requests_in_flight: Optional[int] = None
    """Sequences a server works on at a time; null: raised while that makes it faster, up to `max_in_flight`."""
    max_in_flight: int = 256
    batch_requests: int = 8
    """Requests sent together in one HTTP call: 8 a call gave 12,600 scores a second, 1 a call 3,600."""
    chunked_prefill_tokens: Optional[int] = None
    """Tokens of a prefill batch; null: SGLang's own choice."""
    radix_cache: Optional[bool] = None
    """Keep prefixes for later requests; null: only for a prompt (`page`) whose chunk stage goes on from what the doc
    stage has read, since otherwise prompts share a few tokens only and it is bookkeeping without gain."""
    quantization: Optional[str] = None
    """E.g. `fp8`; check the programs' quality first."""
    max_total_tokens: Optional[int] = None
    """KV-cache tokens; must be set on a CPU, where SGLang would otherwise take nearly all memory."""
    mem_fraction: Optional[float] = None
    """Share of a device's memory for all its servers together (weights and KV cache)."""
    start_timeout_s: int = 600
    request_timeout_s: int = 600
    stall_timeout_s: int = 180
    """A server that has work but neither answers nor logs for so long counts as dead."""
    restarts: int = 5
    """How often in a row a server is started again without having answered anything in between."""
    port: Optional[int] = None
    """Default: a free one. The server binds 127.0.0.1 only."""


@dataclass
class Caps:
    """Bounds on what a program may cost; what goes beyond is counted (see `prox_hpc.programs.Caps`)."""

    program_bytes: int = 131_072
    """UTF-8 bytes of a program."""
    operations: int = 256
    """Calls in a program."""
    string_chars: int = 2_000
    """Characters of a string argument."""
    integer_digits: int = 18
    """Digits of a line number; a longer one is out of range."""
    growth_chars: int = 512
    """A chunk of n characters may grow to `n * (1 + growth_ratio) + growth_chars`."""
    growth_ratio: float = 0.25


@dataclass
class Checks:
    """When an edited document is dropped after all."""

    max_removed: float = 0.95
    """From this share of its words removed; more than 1: never."""
    min_words: int = 11
    """With fewer words left."""


@dataclass
class ArmChecks:
    """refined: checks of this arm; null = as in refiner.checks."""

    max_removed: Optional[float] = None
    min_words: Optional[int] = None


@dataclass
class Refiner:
    """A model that writes programs, how it is prompted and served, and how it is made when it does not exist yet."""

    name: str = MISSING
    train: bool = False
    """The study makes the refiner itself (labels, SFT), one model for both stages, instead of being given models."""
    doc_model: Optional[str] = None
    """Folder or hub name."""
    chunk_model: Optional[str] = None
    prompt: str = "tags"
    """Prompt template: `tags` (ours), `page` (ours, a page is read once for both stages) or `llama2` (the released ProX
    refiners)."""
    doc_answers: list[str] = field(default_factory=lambda: ["keep_doc()", "drop_doc()"])
    """The two answers whose first differing token is scored: keep, drop."""
    profile: str = "v1"
    """Profile of the program language: `v1`, `deletion_only` or `prox_v1` (the released executor, bug for bug)."""
    caps: Caps = field(default_factory=Caps)
    checks: Checks = field(default_factory=Checks)
    parameters: Optional[int] = None
    """Parameters of a given model but one embedding matrix, for the FLOPs; null: read from its config.json."""
    max_chunk_tokens: int = 1500
    max_doc_tokens: int = 2000
    """Longer documents are shown to the doc stage by head and tail."""
    max_new_tokens: int = 256
    doc_threshold: float = 0.0
    """Keep when log p(keep) - log p(drop) >= this."""
    chunk_margin: float = 0.0
    """Also program documents whose score is up to this much below the threshold (all if an arm needs no doc stage)."""
    constrained: bool = True
    """Constrain decoding to the program grammar."""
    doc_retention: Optional[float] = None
    """Keep this share of the documents: the threshold is set on a pilot sample, in place of `doc_threshold`."""
    pilot_documents: int = 2000
    """Documents of the pilot sample."""
    layout: Optional[str] = None
    """`fused` (one model for both stages), `shared` (two servers share the device) or `phased` (one after the other);
    null: fused or shared, as the models are."""
    quarantine: str = "unrefined"
    """What becomes of a document that kills the server again and again: `unrefined` (kept as it is) or `dropped`."""
    max_quarantined: int = 100
    """Documents a task may put into quarantine before it fails."""
    # how a refiner is made
    shape: Shape = field(default_factory=Shape)
    training: Training = field(default_factory=Training)
    seed_corpus: Corpus = field(default_factory=lambda: Corpus(name="seed", kind="generated"))
    """Documents whose gold programs are the labels."""
    lm_weight: float = 0.1
    """Weight of the loss on the page beside the loss on the program (1.0)."""
    serve: Serve = field(default_factory=Serve)


@dataclass
class Arm:
    """One variant of the training corpus."""

    kind: str = MISSING
    """raw | rule | refined | gold | random | classifier"""
    rules: list[str] = field(default_factory=list)
    """rule: datatrove filters in order: gopher_repetition, gopher_quality, c4, fineweb."""
    doc: bool = True
    """refined: execute the doc programs."""
    chunk: bool = True
    """refined: execute the chunk programs."""
    profile: str = "v1"
    """refined: profile of the program language, `v1`, `deletion_only` or `prox_v1`."""
    doc_threshold: Optional[float] = None
    """refined: null = refiner.doc_threshold; not below what the refiner programs."""
    checks: ArmChecks = field(default_factory=ArmChecks)
    like: str = "prox_dc"
    """random, classifier: the arm whose document retention is matched."""
    examples: int = 50_000
    """classifier: documents it learns from at most (the paper's refiners: 51,000)."""


@dataclass
class Trainee:
    """The LM pre-trained on an arm."""

    name: str = MISSING
    model: Optional[str] = None
    """Hub name or folder to continue pre-training from; null: from scratch with `shape`."""
    tokenizer: Optional[str] = None
    """Hub name or folder; null: the study's own small tokenizer, which it makes along with its own refiner."""
    shape: Shape = field(default_factory=Shape)
    training: Training = field(default_factory=Training)


@dataclass
class Evaluation:
    """What every checkpoint is measured on."""

    name: str = MISSING
    kind: str = "world"
    """Held-out text: `world` (clean pages and cloze items of the generated web), `files` (gold text by `keep_column`)
    or `none`."""
    tasks: list[str] = field(default_factory=lambda: ["world_bpb", "world_cloze"])
    """Ours (`python -m prox_hpc.evaluate list`) or lm-eval's own; `name@2`: lm-eval's with two examples."""
    data: Optional[str] = None
    """Folder that `python -m prox_hpc.evaluate fetch` made; `hub`: the tasks read the hub, or its cache."""
    documents: int = 100
    """Held-out documents for bits per byte."""
    items: int = 200
    """Cloze items."""
    metric: str = "world_cloze"
    """The one of `tasks` whose score is compared against compute (accuracy up is better, bits per byte down)."""
    array: Optional[int] = None
    """Tasks that share the checkpoints of a run; null: one for each checkpoint on Slurm, one for all on one machine."""
    while_training: bool = True
    """Evaluate a checkpoint as soon as it is exported, where there is room; false: when training is over."""
    keep_checkpoints: str = "all"
    """Which checkpoints of a run keep their weights once all are scored: `all`, `last` or `none`. Scores stay; weights
    that are gone cannot be scored on other tasks later, by this study or another that shares the run."""
    path: Optional[str] = None
    """files: as corpus.path."""
    text_column: str = "text"
    keep_column: Optional[str] = None
    batch_size: int = 32


@dataclass
class Charges:
    """Which rows of the ledger an arm is charged with. As the paper, the passes are; it leaves out base and labels."""

    annotation: bool = False
    """Labelling the seed documents (`report.annotation_flops`, for a refiner that is given)."""
    base_training: bool = False
    """Pre-training the refiner's base (`report.base_tokens`, for a refiner that is given)."""
    sft: bool = True
    """Fine-tuning the refiner (`report.sft_tokens`, for a refiner that is given)."""
    doc_pass: bool = True
    chunk_prefill: bool = True
    chunk_decode: bool = True
    filtering: bool = True
    """Rule filters, and executing the programs: no FLOPs of a model, but hours."""
    tokenising: bool = True
    pretraining: bool = True
    """Without it no saving can be told, only what the rest costs."""
    evaluation: bool = False


@dataclass
class Alarms:
    """From where on the report warns."""

    doc_f1: float = 0.75
    """A lower F1 of "keep": the paper's refiners have 0.81 to 0.84."""
    line_f1: float = 0.65
    """A lower F1 of removed lines: the paper's refiners have 0.75 to 0.77."""
    failed_programs: float = 0.02
    """A larger share of programs malformed or cut off: the paper counts 0.0004 (documents) and 0.0036 (chunks)."""
    quarantined: float = 0.0
    """A larger share of documents that the servers could not answer; usually there are none."""
    score_drop: float = 0.02
    """An arm that keeps less and scores lower by this share: two standard errors of the ten-task mean (0.45 of 42)."""
    epochs: float = 4.0
    """More passes over an arm's tokens: up to 4 they are nearly as good as new ones (Muennighoff et al. 2023)."""


@dataclass
class Report:
    """What the report charges, and when it warns; changed at any time by `python -m prox_hpc.report RUN`."""

    charge: Charges = field(default_factory=Charges)
    prorate: str = "none"
    """How much of an arm's preparation (passes, filtering, tokenising) is charged where only part of a run is needed:
    `none`, all of it; `run`, tokens trained / tokens of the run, as the paper's Figure 8; `pool`, tokens trained / the
    arm's tokens, all of it once the pool was seen: only re-use is free."""
    annotation_flops: Optional[float] = None
    """FLOPs of labelling the seed documents, where nobody measured them."""
    base_tokens: Optional[float] = None
    """Tokens the refiner's base was trained on: 6 N D."""
    sft_tokens: Optional[float] = None
    """Tokens a given refiner was fine-tuned on: 6 N D."""
    alarms: Alarms = field(default_factory=Alarms)


@dataclass
class Config:
    name: str = "quickstart"
    """Name of the study and of its run folder."""
    output: str = "outputs"
    """Everything is written under this folder: `runs/NAME` and the `store` shared by all studies."""
    run_dir: Optional[str] = None
    """Default: OUTPUT/runs/NAME (plus the overrides of a multirun point)."""
    store: Optional[str] = None
    """Default: OUTPUT/store. On a cluster: a folder every node sees."""
    seeds: list[int] = field(default_factory=lambda: [1, 2])
    """Trainee seeds per arm."""
    dry_run: bool = False
    """Print the DAG and every sbatch script; submit nothing."""
    cluster: Cluster = field(default_factory=Cluster)
    corpus: Corpus = field(default_factory=Corpus)
    refiner: Refiner = field(default_factory=Refiner)
    arm: dict[str, Arm] = field(default_factory=dict)
    trainee: Trainee = field(default_factory=Trainee)
    evaluation: Evaluation = field(default_factory=Evaluation)
    report: Report = field(default_factory=Report)
