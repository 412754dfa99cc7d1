"""What launch checks of a planned study by what the steps themselves know, before anything is queued.

What the configuration alone tells is checked by `study.plan`; what model folders and published artifacts tell, by
`study.models` and `study.amount`.
"""

import shutil
import socket
import sys

from prox_hpc.config import Cluster, Config
from prox_hpc.errors import UserError
from prox_hpc.refiner.tokenizer import smallest_vocabulary
from prox_hpc.serve.prompt import template
from prox_hpc.study.plan import Plan
from prox_hpc.study.vocabulary import read_json
from prox_hpc.train import schedule, shapes, tracker


def check_training(config: Config, study: Plan) -> None:
    """Settings of the training runs that cannot work, with the ranks they will have. Raises UserError."""
    kinds = {step.kind: step for step in study}
    for section, kind in (("refiner", "adapt"), ("trainee", "pretrain")):
        if kind not in kinds:
            continue
        training = getattr(config, section).training
        try:
            _check_ranks(config.cluster, kind)
            schedule.check(training, kinds[kind].processes)
            most = _positions(config, section)
            if not (config.cluster.python or config.cluster.container):  # the tasks' packages are these
                tracker.check(training.tracker)
        except UserError as error:
            told = str(error)
            raise UserError(f"{section}.{told}" if told.startswith(("training.", "shape.")) else told) from error
        if most and training.context > most[1]:
            raise UserError(
                f"{section}.training.context={training.context}: is more than {most[1]}, {most[0]}; lower it"
                + (" or raise that" if most[0].startswith(section) else "")
            )


def _positions(config: Config, section: str) -> tuple[str, int] | None:
    """The most tokens of a sequence that the model trained in this section has positions for, and where it says so."""
    given = config.trainee.model if section == "trainee" else None
    if given is None:
        shape = shapes.as_shape(getattr(config, section).shape)
        return f"{section}.shape.max_position_embeddings", shape.max_position_embeddings
    most = read_json(given, "config.json").get("max_position_embeddings")
    return (f"the max_position_embeddings of {given}/config.json", most) if isinstance(most, int) else None


def _check_ranks(cluster: Cluster, kind: str) -> None:
    """UserError unless a step that trains on GPUs has a rank for each that it asks Slurm for."""
    ask = cluster.ask(kind)
    otherwise = any(key == "gres" or "gpu" in key for key in cluster.sbatch)  # asked for in the site's own way
    if cluster.backend != "slurm" or cluster.device != "cuda" or (otherwise and not ask.gpus):
        return
    if ask.processes != ask.gpus:
        raise UserError(
            f"{cluster.key(kind)}.gpus={ask.gpus}: a node of {kind} has processes={ask.processes}, but should have one "
            f"for each GPU; set {cluster.key(kind)}.processes={max(1, ask.gpus)} and gpus={max(1, ask.gpus)}"
        )


def check_refiner(config: Config, study: Plan) -> None:
    """UserError when the study's refiner cannot be asked what it is to be asked."""
    refiner, kinds = config.refiner, {step.kind for step in study}
    if "tokenizer" in kinds and refiner.shape.vocab_size <= (least := smallest_vocabulary()):
        raise UserError(
            f"refiner.shape.vocab_size={refiner.shape.vocab_size}: set it above {least}, the tokens needed before any "
            "word"
        )
    if "refine" not in kinds:
        return
    template(refiner.prompt)
    if refiner.train:
        most = min(refiner.shape.max_position_embeddings, refiner.serve.max_total_tokens or sys.maxsize)
        for key, asked in (("max_doc_tokens", 1), ("max_chunk_tokens", refiner.max_new_tokens)):
            tokens = getattr(refiner, key)
            if tokens + asked > most:
                raise UserError(
                    f"refiner.{key}={tokens}: with an answer of {asked} more than the {most} tokens that the refiner "
                    "reads (refiner.shape.max_position_embeddings, refiner.serve.max_total_tokens); lower it"
                )


def check_world(study: Plan) -> None:
    """UserError when more is asked about the generated world than there is to ask."""
    for step in study:
        if step.kind == "heldout" and step.config["kind"] == "world":
            from prox_hpc.corpus.heldout import world_items

            world_items(step.config)


def check_machine(config: Config, study: Plan) -> None:
    """UserError where tasks cannot start on this machine, or two of them could be given the same GPU (all see all)."""
    cluster = config.cluster
    training = ("adapt", "pretrain", "evaluate") if cluster.device == "cuda" else ()
    serving = ("pilot", "refine") if config.refiner.serve.device == "cuda" else ()
    if cluster.backend != "local":
        return
    if cluster.python and not shutil.which(cluster.python):
        raise UserError(f"cluster.python={cluster.python}: is no program here; give an interpreter, or leave it out")
    for kind in sorted({step.kind for step in study}.intersection((*training, *serving))):
        ask = cluster.ask(kind)
        if 2 * ask.processes * ask.cpus <= cluster.slots:  # two tasks of more than half of the slots never meet
            raise UserError(
                f"cluster.slots={cluster.slots}: two {kind} tasks of {ask.processes * ask.cpus} slots would be run at "
                f"once on one GPU; set cluster.slots=1 (one task at a time), or {cluster.key(kind)}.cpus="
                f"{cluster.slots // (2 * ask.processes) + 1}"
            )


def check_port(config: Config) -> None:
    """A fixed port must be free on this machine. Raises UserError."""
    port = config.refiner.serve.port
    if port is not None and config.cluster.backend == "local":
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise UserError(
                    f"refiner.serve.port={port}: is in use or not allowed ({error.strerror}); "
                    "leave it out and a free port is taken"
                ) from error
