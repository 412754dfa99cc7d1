"""The plan is a pure function of the configuration; identity is what changes products, sharing follows from it."""

from dataclasses import replace
from typing import Any

import pytest

from prox_hpc.config import Arm, Config, Corpus, Evaluation, Refiner, Trainee
from prox_hpc.errors import UserError
from prox_hpc.study.plan import Plan, plan_study
from prox_hpc.task import Step


def config(**changes: Any) -> Config:
    base = Config(
        run_dir="/run",
        corpus=Corpus(name="web", kind="generated", blocks=4),
        refiner=Refiner(name="nano", train=True),
        arm={"raw": Arm(kind="raw"), "prox_dc": Arm(kind="refined")},
        trainee=Trainee(name="nano"),
        evaluation=Evaluation(name="world"),
    )
    return replace(base, **changes)


def planned(value: Config) -> Plan:
    return plan_study(value, lambda corpus: {"files": [corpus.path]}, lambda described: 5)


def step(plan: Plan, kind: str, name: str = "") -> Step:
    return next(s for s in plan if s.kind == kind and name in s.name)


def test_the_same_configuration_gives_the_same_addresses() -> None:
    assert planned(config()).addresses == planned(config()).addresses


def test_where_it_runs_does_not_change_identity() -> None:
    other = config()
    other = replace(other, cluster=replace(other.cluster, backend="slurm", device="cuda", slots=64))
    other = replace(other, corpus=replace(other.corpus, tasks=4), refiner=replace(other.refiner))
    other.refiner.serve.port = 1234
    assert {s.address for s in planned(other) if s.kind != "report"} == {
        s.address for s in planned(config()) if s.kind != "report"
    }


def test_a_sweep_over_refiners_shares_everything_that_does_not_depend_on_it() -> None:
    models = [
        config(refiner=Refiner(name=name, doc_model=name, chunk_model=name), trainee=Trainee(name="t", tokenizer="x"))
        for name in ("xs", "s")
    ]
    one, two = map(planned, models)
    assert step(one, "pretrain", "raw").address == step(two, "pretrain", "raw").address
    assert step(one, "pretrain", "prox_dc").address != step(two, "pretrain", "prox_dc").address


def test_a_changed_input_changes_everything_after_it_and_nothing_else() -> None:
    first, second = planned(config()), planned(config(refiner=Refiner(name="nano", train=True, lm_weight=0.7)))
    assert step(first, "labels").address == step(second, "labels").address
    assert step(first, "tokenize", "raw").address == step(second, "tokenize", "raw").address
    for kind in ("adapt", "refine", "score", "execute"):
        assert step(first, kind).address != step(second, kind).address


def test_no_more_tasks_than_blocks() -> None:
    plan = planned(config(corpus=Corpus(name="web", kind="generated", blocks=3, tasks=50)))
    assert step(plan, "refine").tasks == 3


def test_prox_c_programs_every_document() -> None:
    plan = planned(config(arm={"prox_c": Arm(kind="refined", doc=False)}))
    assert step(plan, "refine").config["program_all"]
    assert not step(plan, "refine").config["doc_stage"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arm": {}}, "arm="),
        ({"arm": {"x": Arm(kind="cooked")}}, "cooked"),
        ({"arm": {"x": Arm(kind="rule", rules=["no_such"])}}, "no_such"),
        ({"arm": {"x": Arm(kind="rule")}}, "gopher_quality"),
        ({"arm": {"random": Arm(kind="random", like="prox_d")}}, "prox_d"),
        ({"arm": {"gold": Arm(kind="gold")}, "corpus": Corpus(name="f", kind="files", path="p")}, "keep_column"),
        ({"refiner": Refiner(name="r", doc_model="d")}, "chunk_model"),
        ({"arm": {"raw": Arm(kind="raw"), "random": Arm(kind="random", like="raw")}}, "retention"),
        ({"evaluation": Evaluation(name="e", kind="hub")}, "evaluation.kind"),
        ({"seeds": [1, 1]}, "twice"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_contradictions_are_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        planned(config(**changes))


def test_a_model_folder_counts_by_its_files() -> None:
    models = config(refiner=Refiner(name="mine", doc_model="/m", chunk_model="/m"))

    def refine(state: dict[str, Any] | None) -> str:
        plan = plan_study(models, lambda corpus: {}, lambda described: 1, lambda name: state)
        return step(plan, "refine").address

    assert refine({"model.safetensors": [1, 1.0]}) != refine({"model.safetensors": [1, 2.0]})
    assert refine(None) == refine(None)
