"""The plan is a pure function of the configuration; identity is what changes products, sharing follows from it."""

from dataclasses import replace
from typing import Any

import pytest

from prox_hpc.config import Arm, Cluster, Config, Corpus, Evaluation, Refiner, Resources, Serve, Trainee
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
    other = replace(other, corpus=replace(other.corpus, tasks=4))
    other.cluster.assignment, other.cluster.lease_s, other.cluster.peak_tflops = "static", 60, 989.0
    serve = Serve(port=1234, replicas=2, requests_in_flight=64)
    other = replace(other, refiner=replace(other.refiner, serve=serve, layout="phased", max_quarantined=3))
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


def nano(**changes: Any) -> Refiner:
    return Refiner(name="nano", train=True, **changes)


def test_how_a_refine_task_runs_is_told_it() -> None:
    cluster = Cluster(assignment="static", lease_s=60, grace_s=30, peak_tflops=989.0)
    plan = planned(config(cluster=cluster, refiner=nano(layout="phased", max_quarantined=3)))
    runtime = step(plan, "refine").runtime
    assert runtime.pop("serve")["replicas"] == 1
    assert runtime == {
        "assignment": "static", "lease_s": 60, "grace_s": 30, "peak_tflops": 989.0,
        "layout": "phased", "max_quarantined": 3,
    }  # fmt: skip


def test_what_becomes_of_quarantined_documents_changes_identity() -> None:
    refiners = [nano(quarantine=kind) for kind in ("unrefined", "dropped")]
    plans = [planned(config(refiner=refiner)) for refiner in refiners]
    for kind in ("refine", "execute"):
        assert len({step(plan, kind).address for plan in plans}) == 2
    assert step(plans[1], "execute").config["arm"]["quarantine"] == "dropped"


ARMS = {
    "raw": Arm(kind="raw"),
    "prox_dc": Arm(kind="refined"),
    "prox_d": Arm(kind="refined", chunk=False),
    "strict": Arm(kind="refined", chunk=False, doc_threshold=2.0),
    "prox_c": Arm(kind="refined", doc=False),
}


def test_a_retention_is_a_pilot_before_the_refine_step_and_the_arms_that_need_its_threshold() -> None:
    plan = planned(config(arm=ARMS, refiner=nano(doc_retention=0.3)))
    pilot, refine = step(plan, "pilot"), step(plan, "refine")
    assert pilot.inputs == {role: refine.inputs[role] for role in ("corpus", "refiner")}
    assert pilot.tasks == 1
    assert refine.inputs["pilot"] == pilot.address
    settings = refine.config["refiner"]
    assert (settings["doc_threshold"], settings["doc_retention"]) == (None, 0.3)
    arms = {s.name: s for s in plan if s.kind == "execute"}
    for name in ("prox_dc", "prox_d"):
        assert arms[name].inputs["pilot"] == pilot.address
        assert (arms[name].config["arm"]["doc_threshold"], arms[name].config["arm"]["doc_retention"]) == (None, 0.3)
    for name, threshold in (("strict", 2.0), ("prox_c", 0.0)):
        assert "pilot" not in arms[name].inputs
        assert arms[name].config["arm"]["doc_threshold"] == threshold
    order = [s.kind for s in plan]
    assert order.index("adapt") < order.index("pilot") < order.index("refine")
    assert step(plan, "report").inputs["pilot"] == pilot.address


def test_without_a_retention_or_a_doc_stage_there_is_no_pilot() -> None:
    for value in (config(), config(arm={"prox_c": ARMS["prox_c"]}, refiner=nano(doc_retention=0.3))):
        plan = planned(value)
        assert "pilot" not in {s.kind for s in plan}
        settings = step(plan, "refine").config["refiner"]
        assert (settings["doc_threshold"], settings["doc_retention"]) == (0.0, None)
        assert "doc_retention" not in step(plan, "execute").config["arm"]


def test_what_changes_the_pilot_changes_the_refine_step_and_the_rest_leaves_it_alone() -> None:
    first = planned(config(refiner=nano(doc_retention=0.3)))
    for changes in ({"doc_retention": 0.4}, {"pilot_documents": 500}, {"max_doc_tokens": 100}):
        other = planned(config(refiner=nano(**{"doc_retention": 0.3, **changes})))
        assert step(other, "pilot").address != step(first, "pilot").address
        assert step(other, "refine").address != step(first, "refine").address
    other = planned(config(refiner=nano(doc_retention=0.3, chunk_margin=1.0, max_new_tokens=9)))
    assert step(other, "pilot").address == step(first, "pilot").address
    assert step(other, "refine").address != step(first, "refine").address


def test_an_arm_may_have_its_own_threshold_beside_a_retention() -> None:
    # whether its documents have chunk programs is known only after the pilot; executing refuses what has none
    own = {"prox_dc": Arm(kind="refined"), "loose": Arm(kind="refined", doc_threshold=-5.0)}
    assert step(planned(config(arm=own, refiner=nano(doc_retention=0.3))), "execute", "loose")
    with pytest.raises(UserError, match=r"set refiner\.chunk_margin=5 or more"):
        planned(config(arm=own))


def given(**changes: Any) -> dict[str, Any]:
    """A refiner of two given models."""
    return {
        "refiner": Refiner(name="two", doc_model="d", chunk_model="c", **changes),
        "trainee": Trainee(name="t", tokenizer="x"),
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"refiner": nano(doc_retention=0.0)}, "refiner.doc_retention=0.0: must be between 0 and 1, e.g. 0.3"),
        ({"refiner": nano(doc_retention=1.0)}, "refiner.doc_retention=1.0: must be between 0 and 1"),
        ({"refiner": nano(doc_retention=30)}, "refiner.doc_retention=30: must be between 0 and 1"),
        ({"refiner": nano(doc_retention=float("nan"))}, "refiner.doc_retention=nan: must be between 0 and 1"),
        ({"refiner": nano(doc_retention=0.3, pilot_documents=99)}, "refiner.pilot_documents=99: must be 100 or more"),
        ({"refiner": nano(doc_retention=0.3, doc_threshold=0.5)}, "refiner.doc_threshold=0.5: .* leave out one of"),
        ({"refiner": nano(chunk_margin=-0.1)}, "refiner.chunk_margin=-0.1: must be 0 or more"),
        ({"refiner": nano(chunk_margin=float("nan"))}, "refiner.chunk_margin=nan: must be 0 or more"),
        ({"refiner": nano(layout="merged")}, "refiner.layout=merged: unknown; one of fused, shared, phased"),
        ({"refiner": nano(layout="shared")}, "refiner.layout=shared: both stages have the same model; use fused"),
        (given(layout="fused"), "refiner.layout=fused: .*doc_model=d and .*chunk_model=c are two models; use"),
        ({"refiner": nano(quarantine="kept")}, "refiner.quarantine=kept: unknown; one of unrefined, dropped"),
        ({"refiner": nano(max_quarantined=-1)}, "refiner.max_quarantined=-1: must be 0 or more"),
        ({"refiner": nano(serve=Serve(replicas=0))}, "refiner.serve.replicas=0: must be 1 or more"),
        ({"refiner": nano(serve=Serve(requests_in_flight=0))}, "refiner.serve.requests_in_flight=0: must be 1 or more"),
        ({"refiner": nano(serve=Serve(max_in_flight=0))}, "refiner.serve.max_in_flight=0: must be 1 or more"),
        ({"refiner": nano(serve=Serve(batch_requests=0))}, "refiner.serve.batch_requests=0: must be 1 or more"),
        ({"refiner": nano(serve=Serve(chunked_prefill_tokens=0))}, "chunked_prefill_tokens=0: must be 1 or more"),
        ({"refiner": nano(serve=Serve(max_total_tokens=0))}, "refiner.serve.max_total_tokens=0: must be 1 or more"),
        ({"refiner": nano(serve=Serve(stall_timeout_s=0))}, "refiner.serve.stall_timeout_s=0: must be 1 or more"),
        ({"refiner": nano(serve=Serve(restarts=-1))}, "refiner.serve.restarts=-1: must be 0 or more"),
        ({"refiner": nano(serve=Serve(mem_fraction=1.5))}, "refiner.serve.mem_fraction=1.5: must be between 0 and 1"),
        ({"cluster": Cluster(assignment="random")}, "cluster.assignment=random: unknown; one of leased, static"),
        ({"cluster": Cluster(lease_s=9)}, "cluster.lease_s=9: must be 10 or more"),
        ({"cluster": Cluster(successors=-1)}, "cluster.successors=-1: must be 0 or more"),
        ({"cluster": Cluster(successors=1, assignment="static")}, "cluster.successors=1: static tasks keep to their"),
        ({"cluster": Cluster(grace_s=-1)}, "cluster.grace_s=-1: must be 0 or more"),
        ({"cluster": Cluster(peak_tflops=0)}, "cluster.peak_tflops=0: must be above 0"),
        (
            {"cluster": Cluster(backend="slurm", grace_s=600, resources={"refine": Resources(time_min=10)})},
            "cluster.grace_s=600: is all of the 10 min of a refine task",
        ),
        (
            {"cluster": Cluster(resources={"refine": Resources(gpus=1)}), "refiner": nano(doc_retention=0.3)},
            "cluster.resources.pilot: asks for no GPU, refine for 1; write",
        ),
        ({"corpus": Corpus(name="w", kind="generated", blocks=4, allow_failed_blocks=-1)}, "allow_failed_blocks=-1"),
    ],
)
def test_settings_out_of_range_are_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        planned(config(**changes))
    assert "\n" not in str(caught.value)


def test_layouts_that_fit_their_models() -> None:
    only_doc = {"prox_d": ARMS["prox_d"]}
    for changes in (
        given(layout="shared"), given(layout="phased"), given(), {"refiner": nano(layout="fused")},
        {"arm": only_doc, **given(layout="fused")}, {"arm": only_doc, "refiner": nano(layout="shared")},
    ):  # fmt: skip
        value = config(**changes)
        assert step(planned(value), "refine").runtime["layout"] == value.refiner.layout
