"""The plan is a pure function of the configuration; identity is what changes products, sharing follows from it."""

from dataclasses import replace
from typing import Any

import pytest

from prox_hpc.config import (
    Arm,
    Charges,
    Checks,
    Cluster,
    Config,
    Corpus,
    Evaluation,
    Refiner,
    Report,
    Resources,
    Serve,
    Trainee,
    Training,
)
from prox_hpc.errors import UserError
from prox_hpc.study.plan import Plan, plan_study
from prox_hpc.task import Step
from prox_hpc.train.schedule import settings_of


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
    models = config(
        refiner=Refiner(name="mine", doc_model="/m", chunk_model="/m"), trainee=Trainee(name="t", tokenizer="x")
    )

    def refine(state: dict[str, Any] | None) -> str:
        plan = plan_study(models, lambda corpus: {}, lambda described: 1, lambda name: state)
        return step(plan, "refine").address

    assert refine({"model.safetensors": [1, 1.0]}) != refine({"model.safetensors": [1, 2.0]})
    assert refine(None) == refine(None)


def test_on_slurm_every_checkpoint_has_a_task_of_its_own_and_here_one_task_scores_all() -> None:
    trainee = Trainee(name="nano", training=Training(checkpoints=5))

    def evaluate(backend: str, array: int | None) -> Step:
        evaluation = Evaluation(name="world", array=array)
        plan = planned(config(trainee=trainee, evaluation=evaluation, cluster=Cluster(backend=backend)))
        return step(plan, "evaluate")

    tasks = {(b, a): evaluate(b, a).tasks for b in ("local", "slurm") for a in (None, 2, 99)}
    assert tasks == {
        ("local", None): 1, ("local", 2): 2, ("local", 99): 5, ("slurm", None): 5, ("slurm", 2): 2, ("slurm", 99): 5
    }  # fmt: skip
    assert evaluate("local", None).address == evaluate("slurm", 2).address


def test_evaluating_while_training_is_how_it_runs_and_a_task_with_all_checkpoints_waits() -> None:
    def evaluate(array: int, early: bool) -> Step:
        asked = Evaluation(name="world", array=array, while_training=early)
        return step(planned(config(evaluation=asked)), "evaluate")

    assert [evaluate(*at).runtime.get("early") for at in ((2, True), (2, False), (1, True))] == ["pretrain", None, None]
    assert evaluate(2, True).address == evaluate(2, False).address


def test_an_evaluation_counts_by_its_data_and_needs_no_held_out_text() -> None:
    def evaluate(data: dict[str, Any], folder: str) -> Step:
        asked = Evaluation(name="paper", kind="none", tasks=["prox_sciq"], metric="prox_sciq", data=folder)
        plan = plan_study(config(evaluation=asked), lambda c: {}, lambda d: 1, examine=lambda evaluation: data)
        assert "heldout" not in {s.kind for s in plan}
        return step(plan, "evaluate")

    one = evaluate({"prox_sciq": {"test": "0"}}, "/a")
    assert one.inputs.keys() == {"pretrain"}
    assert one.runtime == {"device": "cpu", "data": "/a", "keep_checkpoints": "all"}
    assert one.address == evaluate({"prox_sciq": {"test": "0"}}, "/b").address
    assert one.address != evaluate({"prox_sciq": {"test": "1"}}, "/a").address


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


def test_how_a_training_run_goes_is_told_it_and_does_not_change_identity() -> None:
    how = {"activation_checkpointing": True, "save_minutes": 5, "save_steps": 7, "spike_steps": 0}
    how |= {"stall_timeout_s": 60, "tracker": "wandb", "micro_batch": 8, "compile": True}
    how["deepspeed"] = {"zero_optimization": {"overlap_comm": True}}
    plans = [
        planned(
            config(trainee=Trainee(name="nano", training=Training(**some)), refiner=nano(training=Training(**some)))
        )
        for some in ({}, how, {"schedule_tokens": 800_000})
    ]
    for kind in ("adapt", "pretrain"):
        first, second, third = (step(plan, kind) for plan in plans)
        assert first.address == second.address != third.address
        assert second.runtime["training"] == how
        assert settings_of(second) == Training(**how)
        assert settings_of(third).schedule_tokens == 800_000


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


def asked(**changes: Any) -> dict[str, Any]:
    """A cluster of which pre-training asks this."""
    return {"cluster": Cluster(resources={"pretrain": Resources(**changes)})}


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
        ({"evaluation": Evaluation(name="e", array=0)}, "evaluation.array=0: must be 1 or more"),
        ({"evaluation": Evaluation(name="e", batch_size=0)}, "evaluation.batch_size=0: must be 1 or more"),
        ({"evaluation": Evaluation(name="e", documents=0)}, "evaluation.documents=0: must be 1 or more"),
        ({"evaluation": Evaluation(name="e", items=0)}, "evaluation.items=0: must be 1 or more"),
        ({"seeds": [-1]}, r"seeds=\[-1\]: must be 0 or more"),
        ({"corpus": Corpus("w", "generated", documents=0)}, "corpus.documents=0: must be 1 or more"),
        ({"refiner": nano(seed_corpus=Corpus("s", "generated", limit=0))}, "refiner.seed_corpus.limit=0: must be 1"),
        ({"refiner": nano(seed_corpus=Corpus("s", "web"))}, "refiner.seed_corpus.kind=web: unknown; one of generated"),
        ({"corpus": Corpus("w", "generated", seed=-1)}, "corpus.seed=-1: must be 0 or more"),
        ({"refiner": nano(serve=Serve(device="tpu"))}, "refiner.serve.device=tpu: unknown; one of cpu, cuda"),
        ({"refiner": nano(serve=Serve(dtype="fp32"))}, "refiner.serve.dtype=fp32: unknown; one of auto, half"),
        ({"refiner": nano(serve=Serve(port=99999))}, "refiner.serve.port=99999: must be between 1 and 65535"),
        ({"name": ""}, "name=: is empty; give a value or leave it out"),
        ({"name": ".."}, "name=..: is no name for files; it may have"),
        ({"corpus": Corpus("a/b", "generated")}, "corpus.name=a/b: is no name for files"),
        ({"refiner": nano(seed_corpus=Corpus("a%j", "generated"))}, "refiner.seed_corpus.name=a%j: is no name"),
        ({"trainee": Trainee(name="t", tokenizer="")}, "trainee.tokenizer=: is empty"),
        ({"refiner": nano(doc_answers=["keep"])}, "refiner.doc_answers=.*: give two answers, keep and drop"),
        ({"refiner": nano(doc_answers=["a", "ab"])}, "refiner.doc_answers=.*: give two answers, keep and drop"),
        ({"refiner": nano(doc_threshold=float("nan"))}, "refiner.doc_threshold=nan: must be a number"),
        ({"arm": {"x": Arm("refined", doc_threshold=float("inf"))}}, "arm.x.doc_threshold=inf: must be a number"),
        ({"refiner": nano(checks=Checks(max_removed=float("nan")))}, "max_removed must be above 0"),
        ({"cluster": Cluster(device="tpu")}, "cluster.device=tpu: unknown; one of cpu, cuda"),
        ({"cluster": Cluster(backend="cloud")}, "cluster.backend=cloud: unknown; one of local, slurm"),
        ({"cluster": Cluster(slots=0)}, "cluster.slots=0: must be 1 or more"),
        (asked(processes=0), "cluster.resources.pretrain.processes=0: must be 1 or more"),
        (asked(nodes=0), "cluster.resources.pretrain.nodes=0: must be 1 or more"),
        (asked(cpus=0), "cluster.resources.pretrain.cpus=0: must be 1 or more"),
        (asked(time_min=0), "cluster.resources.pretrain.time_min=0: must be 1 or more"),
        (asked(gpus=-1), "cluster.resources.pretrain.gpus=-1: must be 0 or more"),
        (asked(mem_gb=float("nan")), "cluster.resources.pretrain.mem_gb=nan: must be above 0"),
        ({"cluster": Cluster(resources={"train": Resources()})}, "cluster.resources.train: no such kind of step; one"),
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
        ({"corpus": Corpus("w", "generated", drop_below=0.3)}, r"corpus.drop_below=0.3: needs files with line flags"),
        (
            {"corpus": Corpus("f", "files", path="p", keep_column="keep", drop_below=30)},
            "corpus.drop_below=30: must be between 0 and 1, e.g. 0.3",
        ),
        (
            {"refiner": nano(seed_corpus=Corpus("s", "files", path="p", drop_below=0.3))},
            "refiner.seed_corpus.drop_below=0.3: needs files with line flags; set refiner.seed_corpus.keep_column",
        ),
    ],
)
def test_settings_out_of_range_are_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        planned(config(**changes))
    assert "\n" not in str(caught.value)


CLASSIFIER = {**ARMS, "cheap": Arm(kind="classifier", like="strict")}


def test_a_classifier_learns_from_the_gold_that_the_refiner_learnt_from() -> None:
    plan = planned(config(arm=dict(reversed(CLASSIFIER.items()))))
    learn, scores, arm = step(plan, "classifier"), step(plan, "classify"), step(plan, "execute", "cheap")
    like = step(plan, "execute", "strict").address
    assert learn.inputs == {"corpus": step(plan, "generate", "seed").address}
    assert scores.inputs == {"corpus": step(plan, "generate", "web").address, "classifier": learn.address, "like": like}
    assert arm.inputs == {"corpus": scores.inputs["corpus"], "scores": scores.address}
    assert (learn.tasks, scores.tasks) == (1, step(plan, "refine").tasks)
    order = [s.address for s in plan]
    assert order.index(like) < order.index(scores.address) < order.index(arm.address)
    roles = step(plan, "report").inputs
    assert (roles["classifier/cheap"], roles["scores/cheap"]) == (learn.address, scores.address)


def test_line_flags_alone_teach_no_verdicts() -> None:
    flags = Corpus("s", "files", path="p", keep_column="keep")
    with pytest.raises(UserError, match=r"arm\.\w+: its doc stage .* set refiner\.seed_corpus\.drop_below"):
        planned(config(refiner=nano(seed_corpus=flags)))
    chunks_alone = {"raw": Arm(kind="raw"), "prox_c": Arm(kind="refined", doc=False)}
    planned(config(refiner=nano(seed_corpus=flags), arm=chunks_alone))
    flags.drop_below = 0.3
    plan = planned(config(refiner=nano(seed_corpus=flags), arm=CLASSIFIER))
    assert "like" not in step(plan, "classifier").inputs  # it learns from these verdicts


def test_without_a_seed_corpus_a_classifier_learns_what_the_arm_it_is_like_keeps() -> None:
    plan = planned(config(arm=CLASSIFIER, **given()))
    corpus, like = step(plan, "generate").address, step(plan, "execute", "strict").address
    assert step(plan, "classifier").inputs == {"corpus": corpus, "like": like}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arm": {"c": Arm(kind="classifier")}}, "arm.c.like=prox_dc: that arm is not in the study"),
        ({"arm": {**CLASSIFIER, "c": Arm(kind="classifier", like="raw")}}, "has no retention to match"),
        ({"arm": {**CLASSIFIER, "c": Arm(kind="random", like="cheap")}}, "has no retention to match"),
        ({"arm": {**CLASSIFIER, "c": Arm(kind="classifier", examples=99)}}, "arm.c.examples=99: must be 100 or more"),
        (
            {
                "arm": {**CLASSIFIER, "c": Arm(kind="classifier", like="prox_c")},
                "refiner": Refiner("r", False, "m", "m"),
            },
            "arm.c.like=prox_c: it keeps nearly all documents",
        ),
    ],
)
def test_what_a_classifier_cannot_learn_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        planned(config(**changes))


def test_files_are_told_by_the_keys_of_their_section() -> None:
    def missing(corpus: Corpus) -> dict[str, Any]:
        raise UserError(f"corpus.path={corpus.path}: no such file, or go on without: corpus.allow_failed_blocks=1")

    files = Corpus(name="s", kind="files", path="/data/corpus.x", keep_column="keep", drop_below=0.3)
    for changes, told in (
        (
            {"evaluation": Evaluation("e", "files", path="/data/corpus.x")},
            "evaluation.path=/data/corpus.x: no such file",
        ),
        ({"refiner": nano(seed_corpus=files)}, "refiner.seed_corpus.path=/data/corpus.x: no such file, or go on"),
    ):
        with pytest.raises(UserError) as caught:
            plan_study(config(**changes), missing, lambda described: 1)
        assert str(caught.value).startswith(told)
    assert "go on" not in str(caught.value) or "seed_corpus" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"corpus": Corpus(name="w", kind="generated", path="p")}, "corpus.path=p: with corpus.kind=generated no file"),
        (
            {"evaluation": Evaluation(name="e", path="p")},
            "evaluation.path=p: with evaluation.kind=world no file is read",
        ),
        ({"trainee": Trainee(name="t", model="m")}, "set trainee.tokenizer=m"),
        (
            {"refiner": Refiner(name="r", doc_model="d", chunk_model="c")},
            "trainee.tokenizer: must be given .* trainee.tokenizer=c$",
        ),
        ({"refiner": Refiner(name="r"), "arm": {"raw": Arm(kind="raw")}}, "trainee.tokenizer: must be given"),
    ],
)
def test_settings_that_would_be_passed_over_are_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        planned(config(**changes))


def test_layouts_that_fit_their_models() -> None:
    only_doc = {"prox_d": ARMS["prox_d"]}
    for changes in (
        given(layout="shared"), given(layout="phased"), given(), {"refiner": nano(layout="fused")},
        {"arm": only_doc, **given(layout="fused")}, {"arm": only_doc, "refiner": nano(layout="shared")},
    ):  # fmt: skip
        value = config(**changes)
        assert step(planned(value), "refine").runtime["layout"] == value.refiner.layout


def test_a_row_that_nobody_measured_cannot_be_charged() -> None:
    given = config(
        refiner=Refiner(name="xs", doc_model="xs", chunk_model="xs"),
        trainee=Trainee(name="t", tokenizer="x"),
        report=Report(charge=Charges(base_training=True)),
    )
    with pytest.raises(UserError, match=r"report\.charge\.base_training=true: .* set report\.base_tokens"):
        planned(given)
    given.report.base_tokens = 26.2e9
    planned(given)
    planned(config(report=Report(charge=Charges(annotation=True))))  # gold labels: they cost nothing
    with pytest.raises(UserError, match=r"report\.prorate=half: unknown; one of none, run, pool"):
        planned(config(report=Report(prorate="half")))


def test_what_is_charged_does_not_change_what_is_computed() -> None:
    other = config(report=Report(prorate="run", charge=Charges(sft=False)))
    assert {s.address for s in planned(other) if s.kind != "report"} == {
        s.address for s in planned(config()) if s.kind != "report"
    }
