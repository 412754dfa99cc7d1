"""What a refine step is configured to do, with the models, stages and room that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prox_hpc.config import Refiner, Serve
from prox_hpc.errors import UserError
from prox_hpc.refine import tokens
from prox_hpc.refine.chunk import ChunkStage
from prox_hpc.refine.doc import DocStage
from prox_hpc.refine.records import Execution
from prox_hpc.serve.prompt import template
from prox_hpc.task import Task


@dataclass(frozen=True)
class Settings:
    """The step's configuration.

    program_all: chunk programs for every document, whatever its score. execution: how its refined documents are made.
    runtime: how it runs, see `prox_hpc.study.plan`.
    """

    refiner: Refiner
    serve: Serve
    doc_stage: bool
    chunk_stage: bool
    program_all: bool
    execution: Execution
    runtime: dict[str, Any]

    @staticmethod
    def of(task: Task) -> "Settings":
        """UserError for a configuration that cannot be served."""
        config, runtime = task.config, task.step.runtime
        refiner = Refiner(**{"name": task.step.name, **config["refiner"]})
        if "refiner" in task.step.inputs:
            refiner.doc_model = refiner.chunk_model = str(task.input("refiner") / "model")
        if not (config["doc_stage"] or config["chunk_stage"]):
            raise UserError("refine: neither the doc stage nor the chunk stage is on; some arm must use one")
        stages = config["doc_stage"], config["chunk_stage"], config.get("program_all", False)
        serve = Serve(**runtime.get("serve", {}))
        if serve.radix_cache is None:
            serve = replace(serve, radix_cache=template(refiner.prompt).one_reading)
        return Settings(refiner, serve, *stages, Execution.of(config, task.optional_input("pilot")), runtime)

    @property
    def models(self) -> dict[str, str]:
        """Stage -> model, of the stages that are on."""
        found: dict[str, str] = {}
        for stage, on, model in (
            ("doc", self.doc_stage, self.refiner.doc_model),
            ("chunk", self.chunk_stage, self.refiner.chunk_model),
        ):
            if on and model is None:
                raise UserError(
                    f"refiner.{stage}_model: is not set, and the step has no refiner made here as its input"
                )
            if on and model is not None:
                found[stage] = model
        return found

    @property
    def one_reading(self) -> bool:
        """Whether the chunk stage goes on from what the doc stage has read of a page."""
        return template(self.refiner.prompt).one_reading

    @property
    def lease_s(self) -> float:
        return float(self.runtime.get("lease_s", 300))

    @property
    def max_quarantined(self) -> int:
        return int(self.runtime.get("max_quarantined", self.refiner.max_quarantined))

    @property
    def phased(self) -> bool:
        """Whether all scores are made before the first program, so that each model has the device to itself."""
        return self.runtime.get("layout") == "phased" and self.doc_stage and self.chunk_stage

    def wants_chunks(self, score: float | None) -> bool:
        """Whether a document with this doc score (None: there is no doc stage) is programmed."""
        if not self.chunk_stage:
            return False
        return self.program_all or score is None or score >= self.execution.threshold - self.refiner.chunk_margin


@dataclass(frozen=True)
class Stages:
    """The stages that are on, ready to prompt. parameters: of their models."""

    doc: DocStage | None
    chunk: ChunkStage | None
    parameters: dict[str, dict[str, int | None]]

    @staticmethod
    def of(settings: Settings) -> "Stages":
        """Reads the tokenizers; UserError when a model has no room for what is asked of it."""
        models, refiner = settings.models, settings.refiner
        loaded = {name: tokens.load(name) for name in set(models.values())}
        doc = chunk = None
        if "doc" in models:
            model = loaded[models["doc"]]
            room = _room(model, settings.serve, 1)
            doc = DocStage.of(model, refiner.prompt, refiner.max_doc_tokens, room, refiner.doc_answers)
        if "chunk" in models:
            model = loaded[models["chunk"]]
            room = _room(model, settings.serve, refiner.max_new_tokens)
            limits = refiner.max_chunk_tokens, refiner.max_new_tokens, room
            chunk = ChunkStage.of(model, refiner.prompt, *limits, refiner.constrained)
        return Stages(doc, chunk, {stage: loaded[name].parameters for stage, name in models.items()})

    def only(self, stages: Sequence[str]) -> "Stages":
        """These stages alone."""
        return replace(self, doc=self.doc if "doc" in stages else None, chunk=self.chunk if "chunk" in stages else None)


def _room(model: tokens.Model, serve: Serve, new_tokens: int) -> int:
    """The longest prompt that SGLang accepts with `new_tokens` to follow; it keeps 6 tokens for itself."""
    return min(model.context, serve.max_total_tokens or model.context) - 6 - new_tokens
