"""The report of whole, partial and disappointing studies, from stores fabricated with a known answer."""

import copy
import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from prox_hpc.publish import replace_json
from prox_hpc.report.compare import row_of
from prox_hpc.report.headline import headline, short
from prox_hpc.report.ledger import ROWS
from prox_hpc.report.matched import FIRST
from prox_hpc.report.summary import summary_text
from tests.report.conftest import MODEL

Report = tuple[Path, dict[str, Any]]


def printed(report: dict[str, Any]) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in summary_text(report):
        console.print(part)
    return console.export_text()


def test_a_whole_study_reports_the_saving_it_holds(whole: Report) -> None:
    folder, report = whole
    assert report["complete"]
    assert report["missing"] == []
    for metric in report["metrics"]:  # one doubling ahead: half the FLOPs, for accuracy and for bits per byte
        found = metric["matched"]["prox_dc"]["to_baseline"]
        assert found["saving"]["low"] < 2 < found["saving"]["high"], metric["task"]
        assert found["saving_with_cost"]["ratio"] < found["saving"]["ratio"]
    assert report["headline"]["verdict"] == "offset"  # saved in training, but less than one run's refining
    first, second = report["headline"]["sentences"][:2]
    assert "prox_dc reaches raw's final world_cloze" in first
    assert "fewer training FLOPs" in first
    assert re.search(r"; refining included, .* more FLOPs, not fewer \(saving 0\.", first), "one is not told alone"
    assert second.startswith("It would pay from 3 such training runs")
    assert "With one seed" not in " ".join(report["headline"]["sentences"])
    text = printed(report)
    for wanted in (
        "prox_dc",
        "55.2 %",
        "doc F1 0.941",
        "1,290 ok",
        "all charged",
        "pays from",
        "world_cloze in CPU-hours",
    ):
        assert wanted in text
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 4 * 4  # arms, seeds, checkpoints, metrics
    assert {row["arm"] for row in rows} == {"raw", "gopher", "prox_dc", "gold"}


def test_the_ledger_charges_sft_and_both_passes_and_nothing_twice(whole: Report) -> None:
    _, report = whole
    ledger = {(row["stage"], row["arm"]): row for row in report["ledger"]}
    size = 1_060_000
    assert ledger["doc pass, prefill", None]["flops"] == 2 * size * 650_000
    assert ledger["chunk pass, decode", None]["flops"] == pytest.approx(2 * size * 21_000)
    assert ledger["chunk pass, decode", None]["exact"] > 0
    assert ledger["SFT of the refiner", None]["flops"] == 6 * size * 100_000
    cost = 6 * size * 100_000 + 2 * size * (650_000 + 420_000 + 21_000)
    assert report["refining_flops"] == pytest.approx(cost)
    assert ledger["pre-training", "raw"]["flops"] == pytest.approx(2 * 6 * size * 48 * 8192)
    assert ledger["evaluation", "raw"]["flops"] == 2 * 4 * 2 * size * 40_000
    assert {row["row"] for row in report["ledger"]} == set(ROWS)
    matched = report["metrics"][0]["matched"]
    assert matched["prox_dc"]["cost"]["flops"] == pytest.approx(cost)
    assert matched["gold"]["cost"]["flops"] == matched["gopher"]["cost"]["flops"] == 0
    found = matched["prox_dc"]["to_baseline"]
    assert found["saving_with_cost"]["ratio"] == pytest.approx(found["baseline_flops"] / (found["arm_flops"] + cost))


def test_an_arm_without_the_chunk_stage_is_not_charged_for_it(fabricate: Any, make_report: Any) -> None:
    _, report = make_report(fabricate(shift={"prox_d": 0.5}, overrides=("arm=[raw,prox_d]",)))
    assert report["arm"] == "prox_d"
    assert report["metrics"][0]["matched"]["prox_d"]["cost"]["flops"] == pytest.approx(
        1_060_000 * (600_000 + 2 * 650_000)
    )


def test_arms_that_share_a_pass_are_charged_with_what_they_need(fabricate: Any, make_report: Any) -> None:
    """Beside prox_c every document is programmed: 60 % of that is of documents that prox_dc drops before."""
    task = fabricate(overrides=("arm=[raw,prox_c,prox_dc]",))
    manifest = task.input("arm/prox_dc") / "artifact.json"
    content = json.loads(manifest.read_text())
    content["summary"]["tokens"] |= {"chunk_prefill": 168_000, "chunk_decode": 4_200}
    manifest.write_text(json.dumps(content))
    folder, report = make_report(task)
    size = 1_060_000
    sft = 6 * size * 100_000
    costs = {arm: matched["cost"] for arm, matched in report["metrics"][0]["matched"].items()}
    assert costs["prox_c"]["flops"] == pytest.approx(sft + 2 * size * (420_000 + 21_000))
    assert costs["prox_dc"]["flops"] == pytest.approx(sft + 2 * size * (650_000 + 168_000 + 4_200))
    assert report["refining_flops"] == pytest.approx(costs["prox_dc"]["flops"])
    rows = {row["stage"]: row for row in report["ledger"] if row["arm"] is None}
    assert rows["chunk pass, prefill"]["flops"] == 2 * size * 420_000, "what was computed, once"
    charged = {row["arm"]: row for row in report["charge"]["arms"]}
    assert charged["prox_dc"]["shares"] == pytest.approx({"doc_pass": 1, "chunk_prefill": 0.4, "chunk_decode": 0.2})
    for row in charged.values():
        assert sum(row["parts"].values()) == pytest.approx(row["flops"])
    needed = rows["doc pass, prefill"], rows["chunk pass, prefill"], rows["chunk pass, decode"]
    hours = sum(share * row["cpu_hours"] for share, row in zip((1, 0.4, 0.2), needed, strict=True))
    own = next(row for row in report["ledger"] if (row["row"], row["arm"]) == ("filtering", "prox_dc"))
    fixed = rows["SFT of the refiner"]["cpu_hours"] + own["cpu_hours"]
    assert costs["prox_dc"]["hours"] == pytest.approx(fixed + hours), "tokenising took raw as long"
    assert report["charge"]["whole_passes"] == []
    assert "40.0 %" in (folder / "report.html").read_text()


def test_an_arm_that_counted_no_tokens_is_charged_with_the_whole_passes(fabricate: Any, make_report: Any) -> None:
    """As an older execute step left it."""
    late = ("pretrain", "evaluate")
    task = fabricate(overrides=("arm=[raw,prox_c,prox_dc]",), skip=lambda step: step.kind in late)
    manifest = task.input("arm/prox_dc") / "artifact.json"
    content = json.loads(manifest.read_text())
    del content["summary"]["tokens"]
    manifest.write_text(json.dumps(content))
    folder, report = make_report(task)
    assert report["refining_flops"] == pytest.approx(1_060_000 * (600_000 + 2 * (650_000 + 420_000 + 21_000)))
    assert report["charge"]["whole_passes"] == ["prox_dc"]
    assert "Charged with the whole passes" in (folder / "report.html").read_text()


def with_cached(task: Any) -> Any:
    """105,000 of the 420,000 tokens of chunk prompts had been read with the doc prompts."""
    manifest = task.input("refine") / "artifact.json"
    content = json.loads(manifest.read_text())
    content["summary"]["tokens"]["chunk_cached"] = 105_000
    manifest.write_text(json.dumps(content))
    return task


def test_what_the_doc_prompt_had_read_already_is_not_charged_twice(fabricate: Any, make_report: Any) -> None:
    folder, report = make_report(with_cached(fabricate(overrides=("arm=[raw,prox_dc]",))))
    row = next(row for row in report["ledger"] if row["row"] == "chunk_prefill")
    assert row["flops"] == pytest.approx(2 * 1_060_000 * (420_000 - 105_000))
    assert row["note"] == "105,000 more prompt tokens had been read before (prefix cache)"
    assert row["note"] in (folder / "report.html").read_text()


def test_an_arm_without_doc_stage_pays_for_what_only_doc_prompts_had_read(fabricate: Any, make_report: Any) -> None:
    _, report = make_report(with_cached(fabricate(overrides=("arm=[raw,prox_c,prox_dc]",))))
    parts = {row["arm"]: row["parts"] for row in report["charge"]["arms"]}
    assert parts["prox_c"]["chunk_prefill"] == pytest.approx(2 * 1_060_000 * 420_000)
    assert parts["prox_dc"]["chunk_prefill"] == pytest.approx(2 * 1_060_000 * (420_000 - 105_000))


def test_hours_come_from_the_wall_clock_where_slurm_ran_nothing(whole: Report) -> None:
    """Every task took 12.5 s; `cluster=local` gives a refine task two cores, the refiner's training two ranks."""
    _, report = whole
    assert report["hours"] == {"unit": "CPU-hours", "why_no_accounts": "no Slurm job ran it", "spread": 1}
    second = 1 / 3600
    ledger = [row for row in report["ledger"] if row["hours_from"]]
    passes = [row for row in ledger if row["row"] in ("doc_pass", "chunk_prefill", "chunk_decode")]
    assert sum(row["cpu_hours"] for row in passes) == pytest.approx(2 * 12.5 * second)
    assert passes[0]["cpu_hours"] / passes[1]["cpu_hours"] == pytest.approx(passes[0]["flops"] / passes[1]["flops"])
    sft = next(row for row in ledger if row["row"] == "sft")
    assert (sft["cpu_hours"], sft["hours_from"]) == (pytest.approx(2 * 12.5 * second), "wall clock")
    assert {row["hours_from"] for row in report["steps"]} == {"wall clock"}
    told = report["metrics"][0]["matched"]["prox_dc"]["to_baseline"]["units"]
    assert told["hours"]["saving"]["ratio"] == pytest.approx(told["flops"]["saving"]["ratio"]), "all runs took as long"
    assert told["hours"]["saving_with_cost"]["ratio"] < told["hours"]["saving"]["ratio"]
    line = report["metrics"][0]["curves"]["raw"]
    assert line["hours"][-1] == pytest.approx(12.5 * second)


def test_break_even_is_where_the_saving_has_paid_the_cost(whole: Report) -> None:
    _, report = whole
    row = next(
        r for r in report["break_even"] if (r["arm"], r["task"], r["unit"]) == ("prox_dc", "world_cloze", "flops")
    )
    assert row["tokens"] * row["per_token"] * (row["saving"] - 1) == pytest.approx(row["cost"])
    assert row["per_token"] == pytest.approx(6 * 1_060_000)
    assert row["passes"] == pytest.approx(row["tokens"] / (1105 * 310))
    assert row["tokens_low"] < row["tokens"] < row["tokens_high"]
    found = report["metrics"][0]["matched"]["prox_dc"]["to_baseline"]
    assert row["runs"] == pytest.approx(row["cost"] / (found["baseline_flops"] - found["arm_flops"]))
    assert "3 such training runs" in report["headline"]["sentences"][1]
    assert 2 < row["runs"] <= 3
    own = next(size for size in row["sizes"] if size["own"])
    double = next(size for size in row["sizes"] if size["parameters"] == 2 * own["parameters"])
    assert own["tokens"] == pytest.approx(row["tokens"])
    assert double["tokens"] == pytest.approx(2 * row["tokens"]), "all that this refiner cost is passes and SFT"


def test_rows_are_switched_in_and_out_and_the_report_says_which(fabricate: Any, make_report: Any) -> None:
    overrides = ("report.charge.sft=false", "report.charge.evaluation=true", "report.charge.chunk_decode=false")
    _, report = make_report(fabricate(overrides=(*overrides, "arm=[raw,prox_dc]")))
    size = 1_060_000
    assert report["refining_flops"] == pytest.approx(2 * size * (650_000 + 420_000))
    found = report["metrics"][0]["matched"]["prox_dc"]["to_baseline"]
    evaluation = 4 * 2 * size * 40_000  # of one run
    costs = found["baseline_flops"] + evaluation, found["arm_flops"] + evaluation + report["refining_flops"]
    assert found["saving_with_cost"]["ratio"] == pytest.approx(costs[0] / costs[1])
    charged = {row["arm"]: row["rows"] for row in report["charge"]["arms"]}
    assert charged["raw"] == ["tokenising", "pretraining", "evaluation"]
    assert charged["prox_dc"] == ["doc_pass", "chunk_prefill", "filtering", "tokenising", "pretraining", "evaluation"]
    assert "charged: doc_pass, chunk_prefill, filtering" in printed(report)


GIVEN = (
    "refiner.train=false",
    "refiner.doc_model=org/doc",
    "refiner.chunk_model=org/chunk",
    "trainee.tokenizer=org/t",
    "arm=[raw,prox_dc]",
)
"""A study whose refiner was made elsewhere."""


def test_what_nobody_measured_is_named_where_the_cost_is_told(fabricate: Any, make_report: Any) -> None:
    _, report = make_report(fabricate(overrides=(*GIVEN, "refiner.parameters=1000000")))
    passes = 2 * 1_000_000 * (650_000 + 420_000 + 21_000)
    assert report["refining_flops"] == pytest.approx(passes)
    assert report["charge"]["unmeasured"] == report["charge"]["unmeasured_hours"] == ["SFT of the refiner"]
    assert "nobody measured it: SFT of the refiner" in printed(report)
    without = "refining included, without SFT of the refiner, which nobody measured, "
    assert without in report["headline"]["sentences"][0]
    assert all(without in told for told in report["headline"]["sentences"] if "refining included" in told)
    assert all(row["exact_flops"] is None for row in report["charge"]["arms"] if row["arm"] == "prox_dc"), "no shape"


def test_a_given_refiner_is_charged_with_all_but_one_embedding_matrix(fabricate: Any, make_report: Any) -> None:
    switches = ("report.sft_tokens=3000000", "report.base_tokens=5000000", "report.charge.base_training=true")
    _, report = make_report(fabricate(overrides=(*GIVEN, *switches, "report.charge.evaluation=true")))
    size, tokens = 1_060_000, 650_000 + 420_000 + 21_000
    assert report["refining_flops"] == pytest.approx(6 * size * 8_000_000 + 2 * size * tokens)
    assert report["refiner_about"]["parameters"] == {"doc": size, "chunk": size}
    rows = {row["stage"]: row for row in report["ledger"]}
    exact = 3 * (2 * size + 4 * 4 * 128 * 256) * 3_000_000  # 4 layers, 128 wide, contexts of 256 tokens
    assert rows["SFT of the refiner"]["exact"] == pytest.approx(exact)
    assert rows["evaluation"]["exact"] == pytest.approx(rows["evaluation"]["flops"] * 6.9 / 6)
    told = report["metrics"][0]["matched"]["prox_dc"]
    assert told["to_baseline"]["units"]["exact_flops"]["saving_with_cost"]["ratio"] > 0
    charged = next(row for row in report["charge"]["arms"] if row["arm"] == "prox_dc")
    assert charged["exact_flops"] > 0
    assert report["charge"]["unmeasured"] == []
    assert report["charge"]["unmeasured_hours"] == ["base of the refiner", "SFT of the refiner"]
    passes = sum(row["cpu_hours"] for row in report["ledger"] if row["row"] in ("doc_pass", "chunk_prefill"))
    assert charged["hours"] > passes > 0, "hours spent elsewhere leave the sum standing"
    assert told["to_baseline"]["units"]["hours"]["saving_with_cost"]["ratio"] > 0
    told_hours = next(line for line in report["headline"]["sentences"] if line.startswith("In hours"))
    assert "refining included, without base of the refiner and SFT of the refiner, which nobody meas" in told_hours
    assert "nobody measured" not in report["headline"]["sentences"][0]


def test_a_refiner_whose_size_is_not_recorded_is_not_guessed_at(fabricate: Any, make_report: Any) -> None:
    """As an older refine step left it: whether the matrices are tied is not known."""
    task = fabricate(overrides=GIVEN)
    manifest = task.input("refine") / "artifact.json"
    content = json.loads(manifest.read_text())
    two = {"non_embedding": 800_000, "total": 1_320_000}
    content["summary"]["parameters"] = {"doc": two, "chunk": two}
    manifest.write_text(json.dumps(content))
    _, report = make_report(task)
    assert report["refining_flops"] is None
    assert report["headline"]["verdict"] == "unknown"
    told = "What the refining cost is not known (doc pass, prefill: the size that is charged for was not recorded; set "
    assert report["headline"]["sentences"][1].startswith(told)


def test_fabricated_refiners_record_what_real_ones_do() -> None:
    from transformers import GPTNeoXConfig, LlamaConfig

    from prox_hpc.refine.tokens import counted
    from prox_hpc.report.ledger import Model

    shape = {"hidden_size": 1280, "intermediate_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16}
    xs = counted(LlamaConfig(**shape, num_key_value_heads=1, vocab_size=32_000, max_position_embeddings=2048))
    assert set(xs) == set(MODEL)
    assert xs["minus_one_embedding"] == 313_324_800, "Table 8"
    assert Model.counted(xs) == Model(313_324_800, 24, 1280, 2048, head=32_000 * 1280)
    tied = counted(GPTNeoXConfig(**shape, vocab_size=32_000, tie_word_embeddings=True))
    assert Model.counted(tied).tied
    assert set(counted(SimpleNamespace(model_type="mamba")).values()) == {None}


def test_without_pretraining_in_the_charge_no_saving_with_costs_is_told(fabricate: Any, make_report: Any) -> None:
    _, report = make_report(fabricate(overrides=("arm=[raw,prox_dc]", "report.charge.pretraining=false")))
    assert report["headline"]["verdict"] == "unknown"
    told = " ".join(report["headline"]["sentences"])
    assert "Pre-training is switched out (report.charge.pretraining)" in told
    assert "not known" not in told


def test_labels_and_base_are_charged_as_given(fabricate: Any, make_report: Any) -> None:
    given = ("report.annotation_flops=7e12", "report.base_tokens=1000000", "report.charge.annotation=true")
    _, report = make_report(fabricate(overrides=(*given, "report.charge.base_training=true", "arm=[raw,prox_dc]")))
    size = 1_060_000
    rest = 6 * size * 100_000 + 2 * size * (650_000 + 420_000 + 21_000)
    assert report["refining_flops"] == pytest.approx(7e12 + 6 * size * 1_000_000 + rest)


def test_pro_rata_charges_the_share_that_was_trained(fabricate: Any, make_report: Any) -> None:
    reports = {
        way: make_report(fabricate(overrides=(f"report.prorate={way}", f"name={way}", "arm=[raw,prox_dc]")))[1]
        for way in ("none", "run", "pool")
    }
    found = {way: report["metrics"][0]["matched"]["prox_dc"]["to_baseline"] for way, report in reports.items()}
    size, run = 1_060_000, 6 * 1_060_000 * 48 * 8192
    sft, passes = 6 * size * 100_000, 2 * size * (650_000 + 420_000 + 21_000)
    raw, arm = found["run"]["baseline_flops"], found["run"]["arm_flops"]
    assert found["run"]["saving_with_cost"]["ratio"] == pytest.approx(raw / (arm + sft + passes * arm / run))
    share = min(1, arm / (run / 1.3))  # the run sees its pool 1.3 times
    assert found["pool"]["saving_with_cost"]["ratio"] == pytest.approx(raw / (arm + sft + passes * share))
    assert [reports[way]["charge"]["prorate"] for way in reports] == ["none", "run", "pool"]
    first = {way: report["headline"]["sentences"][0] for way, report in reports.items()}
    assert "refining included, pro rata of the run (report.prorate=run), " in first["run"]
    assert "refining included, by the share of the pool used (report.prorate=pool), " in first["pool"]
    assert "prorate" not in first["none"]
    assert len({report["break_even"][0]["tokens"] for report in reports.values()}) == 1, "it is of the whole cost"


def test_several_tasks_have_their_mean_as_one_more(fabricate: Any, make_report: Any) -> None:
    """The paper's layout; a second accuracy task is written beside the first."""
    task = fabricate(overrides=("arm=[raw,prox_dc]",))
    task.config["study"]["evaluation"]["tasks"] = ["world_cloze", "again", "world_bpb"]
    for path in task.store.glob("artifacts/evaluate/*/scores.json"):
        scores = json.loads(path.read_text())
        for entry in scores["checkpoints"]:
            entry["scores"]["again"] = {"acc": entry["scores"]["world_cloze"]["acc"] - 0.2}
        path.write_text(json.dumps(scores))
    folder, report = make_report(task)
    assert [metric["task"] for metric in report["metrics"]] == ["world_cloze", "again", "world_bpb", "average"]
    finals = {(row["arm"], row["task"]): row["mean"] for row in report["scores"]}
    assert finals["raw", "average"] == pytest.approx(finals["raw", "world_cloze"] - 0.1)
    mean = report["metrics"][3]
    assert mean["curves"]["raw"]["mean"][-1] == pytest.approx(finals["raw", "average"])
    assert mean["matched"]["prox_dc"]["to_baseline"]["saving"]["low"] > 1
    heads = (folder / "report.html").read_text().split('id="scores"')[1].split("</thead>")[0]
    assert heads.index("world_bpb") < heads.index("world_cloze") < heads.index("again") < heads.index("average")


def test_a_group_is_the_mean_of_its_members_items(fabricate: Any, make_report: Any) -> None:
    task = fabricate(overrides=("arm=[raw,prox_dc]",))
    task.config["study"]["evaluation"] |= {"tasks": ["both", "world_cloze", "part"], "metric": "both"}
    for path in task.store.glob("artifacts/evaluate/*/scores.json"):
        scores = json.loads(path.read_text()) | {"groups": {"both": ["world_cloze", "part"]}}
        for entry in scores["checkpoints"]:
            one = entry["scores"]["world_cloze"]["acc_norm"]
            entry["scores"] |= {"part": {"acc": one / 2}, "both": {"acc_norm": 0.75 * one}}
        path.write_text(json.dumps(scores))
    _, report = make_report(task)
    assert [metric["task"] for metric in report["metrics"]] == ["both", "world_cloze", "part"], "no mean beside it"
    both, cloze = report["metrics"][:2]
    assert both["curves"]["raw"]["mean"] == pytest.approx([0.75 * score for score in cloze["curves"]["raw"]["mean"]])
    assert both["matched"]["prox_dc"]["items_count"] == 400, "the cloze items; the other task has none"


def test_a_worse_arm_is_told_plainly(fabricate: Any, make_report: Any) -> None:
    _, report = make_report(fabricate(shift={"prox_dc": -0.8}))
    assert report["headline"]["verdict"] == "none"
    assert "does not reach raw's final world_cloze" in report["headline"]["sentences"][0]
    assert "not reached" in printed(report)


def test_a_score_had_from_the_first_checkpoint_is_told_as_a_bound(fabricate: Any, make_report: Any) -> None:
    folder, report = make_report(fabricate(shift={"prox_dc": 4.0}, overrides=("arm=[raw,prox_dc]",)))
    found = report["metrics"][0]["matched"]["prox_dc"]["to_baseline"]
    assert (found["arm_outcome"], found["saving"]["bound"], found["saving"]["high"]) == (FIRST, "at least", None)
    told = " ".join(report["headline"]["sentences"])
    assert "with at least 4.0" in told
    assert re.search(r"In hours: at least 4\.0.× fewer", told)
    assert "paid back once at most" in told
    assert re.search(r"refining included, at most 1\.\d+× more FLOPs \(saving ≥ 0\.", told), "it may be fewer"
    row = next(row for row in report["break_even"] if row["arm"] == "prox_dc")
    assert (row["bound"], row["tokens_low"]) == ("at most", 0)
    shown = printed(report)
    assert re.search(r"≤ [\d.e]+ +≥ 4\.0.×", shown)
    assert re.search(r"≤ [\d.]+K tokens", shown)
    assert "≥ 4.0" in (folder / "report.html").read_text()
    assert row_of(report, folder)["saving_bound"] == "at least"


def edit_scores(task: Any, change: Any) -> None:
    """change(scores by task, step) on every checkpoint of every run."""
    for path in task.store.glob("artifacts/evaluate/*/scores.json"):
        scores = json.loads(path.read_text())
        for entry in scores["checkpoints"]:
            change(entry["scores"], entry["step"])
        path.write_text(json.dumps(scores))


def test_a_score_that_is_no_finite_number_is_left_out_and_named(fabricate: Any, make_report: Any) -> None:
    task = fabricate(overrides=("arm=[raw,prox_dc]",))
    task.config["study"]["evaluation"]["tasks"] = ["world_cloze", "wiki", "never"]

    def change(scores: Any, step: int) -> None:
        scores["wiki"] = {"word_perplexity": math.inf if step in (12, 48) else 1000 / step}
        scores["never"] = {"word_perplexity": math.nan}

    edit_scores(task, change)
    _, report = make_report(task)
    wiki = next(metric for metric in report["metrics"] if metric["task"] == "wiki")
    assert len(wiki["curves"]["raw"]["flops"]) == 2
    assert next(row for row in report["scores"] if row["task"] == "wiki")["mean"] is None, "its last one is infinite"
    first = {"arm": "raw", "seed": 1, "task": "wiki", "step": 12}
    assert report["not_finite"][0] == first
    assert len(report["not_finite"]) == 4 * (2 + 4)
    told = "Left out, since they are no finite numbers: raw seed 1, wiki at step 12, and 23 more."
    assert told in report["headline"]["sentences"]


def test_a_headline_about_another_task_than_the_chosen_one_says_so(fabricate: Any, make_report: Any) -> None:
    task = fabricate(overrides=("arm=[raw,prox_dc]",))
    edit_scores(task, lambda scores, step: scores.pop("world_cloze"))
    _, report = make_report(task)
    assert report["headline"]["verdict"] == "unknown"
    told = report["headline"]["sentences"]
    assert told[0].startswith("Of world_cloze (evaluation.metric) there are no scores to compare")
    assert "world_bpb" in told[1]


def test_hours_of_another_kind_are_named(fabricate: Any, make_report: Any) -> None:
    """Trained on GPUs, refined on CPUs."""
    task = fabricate(overrides=("arm=[raw,prox_dc]",))
    task.step.runtime["resources"] = {**task.step.runtime["resources"], "pretrain": {"gpus": 1}}
    _, report = make_report(task)
    assert report["hours"]["unit"] == "GPU-hours"
    assert report["charge"]["other_kind"][:2] == ["SFT of the refiner", "doc pass, prefill"]
    told = next(line for line in report["headline"]["sentences"] if line.startswith("In hours"))
    assert told.endswith("chunk pass, decode ran on CPUs, whose hours are of another kind.")


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        ([1, 1], "With one seed an arm"),
        ([1, 2], "One of the two arms has a single seed"),
        ([3, 2], "With 2 seeds an arm the intervals are too narrow"),
        ([4, 9], "With 4 seeds an arm the intervals are too narrow"),
        ([5, 5], None),
    ],
)
def test_with_few_seeds_the_interval_is_said_to_be_too_narrow(whole: Report, seeds: list[int], told: str) -> None:
    report = copy.deepcopy(whole[1])
    report["metrics"][0]["matched"]["prox_dc"]["seeds"] = seeds
    found = [line for line in headline(report)["sentences"] if "seed" in line and "interval" in line]
    assert [line.startswith(told) for line in found] == ([True] if told else [])


def test_an_arm_that_never_gets_there_never_pays(fabricate: Any, make_report: Any) -> None:
    folder, report = make_report(fabricate(shift={"prox_dc": -0.8}, overrides=("arm=[raw,prox_dc]",)))
    row = next(row for row in report["break_even"] if row["arm"] == "prox_dc")
    assert (row["saving"], row["tokens"], row["passes"], row["runs"]) == (0, None, None, None)
    assert "never" in printed(report)
    assert ">never<" in (folder / "report.html").read_text()


def test_an_arm_that_does_better_than_the_refined_one_is_named(fabricate: Any, make_report: Any) -> None:
    _, report = make_report(fabricate(shift={"gopher": 1.4}))
    better = [sentence for sentence in report["headline"]["sentences"] if sentence.startswith("Better than prox_dc")]
    assert len(better) == 1
    assert re.fullmatch(r"Better than prox_dc there: gopher 0\.\d+\.", better[0]), "neither gold nor raw"


def test_no_difference_is_not_sold_as_one(fabricate: Any, make_report: Any) -> None:
    _, report = make_report(fabricate(shift={"prox_dc": 0.02}))
    assert report["headline"]["verdict"] in ("unclear", "none")
    told = " ".join(report["headline"]["sentences"][:2])
    assert "does not show a difference" in told or "does not reach" in told


def test_a_baseline_that_never_rises_is_pointed_out(whole: Report) -> None:
    _, report = copy.deepcopy(whole)
    report["metrics"][0]["matched"]["prox_dc"]["to_baseline"]["baseline_outcome"] = FIRST
    assert "raw had that score from its first checkpoint on" in " ".join(headline(report)["sentences"])
    assert "first checkpoint" not in " ".join(headline(whole[1])["sentences"])


def test_scores_that_fell_and_uneven_machines_are_pointed_out(fabricate: Any, make_report: Any) -> None:
    task = fabricate(overrides=("arm=[raw,prox_dc]",))
    for seed in (1, 2):
        state = task.store / "steps" / task.step.inputs[f"pretrain/prox_dc/seed{seed}"] / "tasks" / "00000.json"
        replace_json(state, {"state": "done", "seconds": 3 * 12.5})
    _, report = make_report(task)
    assert report["hours"]["spread"] == pytest.approx(3)
    told = " ".join(report["headline"]["sentences"])
    assert "Some runs took 3.00× as long as others for the same FLOPs" in told
    assert "fitted" not in told
    report["metrics"][0]["matched"]["prox_dc"]["to_baseline"]["target"] += 0.01
    assert "on the fitted curve, 0." in headline(report)["sentences"][0]


def test_a_partial_study_gives_a_partial_report(fabricate: Any, make_report: Any) -> None:
    late = ("seed2", "gold")
    task = fabricate(
        skip=lambda step: step.kind in ("pretrain", "evaluate") and any(word in step.name for word in late)
    )
    failed = next(address for role, address in task.step.inputs.items() if role == "pretrain/gold/seed1")
    status = {"state": "failed", "error": "RuntimeError: loss is <NaN> at step 7"}
    replace_json(task.store / "steps" / failed / "tasks" / "00000.json", status)
    folder, report = make_report(task)
    assert not report["complete"]
    assert report["missing"][0] == {"step": failed, "state": "failed", "error": status["error"]}
    assert len(report["missing"]) == 2 * (3 + 2)
    assert "gold" not in report["metrics"][0]["matched"]
    assert report["metrics"][0]["matched"]["prox_dc"]["seeds"] == [1, 1]
    page = (folder / "report.html").read_text()
    assert "This report is partial" in page
    assert "loss is &lt;NaN&gt; at step 7" in page
    assert "This report is partial: 10 steps" in printed(report)


def test_a_study_that_has_only_begun_still_gives_a_report(fabricate: Any, make_report: Any) -> None:
    folder, report = make_report(fabricate(skip=lambda step: step.kind != "generate"))
    assert report["headline"]["verdict"] == "unknown"
    assert "no saving can be told" in report["headline"]["sentences"][0]
    assert "Nothing to compare yet" in (folder / "report.html").read_text()
    assert "no saving can be told" in printed(report)


def test_a_study_without_a_refined_arm_says_so(fabricate: Any, make_report: Any) -> None:
    _, report = make_report(fabricate(overrides=("arm=[raw,gopher]",)))
    assert "no refined arm" in report["headline"]["sentences"][0]
    assert report["metrics"][0]["matched"]["gopher"]["cost"]["flops"] == 0


def test_one_seed_has_no_range_and_the_headline_says_so(fabricate: Any, make_report: Any) -> None:
    _, report = make_report(fabricate(overrides=("arm=[raw,prox_dc]", "seeds=[1]")))
    sentences = report["headline"]["sentences"]
    assert sentences[-1].startswith("With one seed an arm")
    assert re.fullmatch(r"At equal training tokens: world_cloze raw [\d.]+, prox_dc [\d.]+; .*", sentences[-2])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (512, "512"), (434_210, "434K"), (999_600, "1.00M"), (1.06e6, "1.06M"), (26.2e9, "26.2B"), (None, "–")],
)
def test_tokens_are_written_with_three_digits(value: float | None, shown: str) -> None:
    assert short(value) == shown


def test_evidence_adds_up_documents_and_shows_losses(whole: Report) -> None:
    _, report = whole
    evidence = report["evidence"]
    assert evidence["server"] == "0.5.23"
    refine = next(row for row in evidence["corpora"] if row["role"] == "refine")
    assert (refine["documents"], refine["kept"], refine["dropped"], refine["failed"]) == (2000, 1105, 892, 3)
    assert all(row["balanced"] for row in evidence["corpora"])
    assert [row["run"] for row in evidence["trained"]][:2] == ["adapt", "pretrain/raw/seed1"]
    assert evidence["trained"][1]["first_loss"] > evidence["trained"][1]["last_loss"]
    assert len(evidence["trained"][1]["checkpoints"]) == 4
    assert all(Path(path).exists() for path in evidence["trained"][1]["checkpoints"])


def test_a_block_that_does_not_add_up_is_shown(fabricate: Any, make_report: Any) -> None:
    task = fabricate(skip=lambda step: step.kind == "evaluate")
    block = task.input("refine") / "blocks" / "00000.json"
    counts = json.loads(block.read_text())
    block.write_text(json.dumps(counts | {"kept": counts["kept"] - 1}))
    folder, report = make_report(task)
    assert not next(row for row in report["evidence"]["corpora"] if row["role"] == "refine")["balanced"]
    assert ">NO<" in (folder / "report.html").read_text()


def test_the_report_is_made_again_over_an_old_one(fabricate: Any, make_report: Any) -> None:
    task = fabricate(skip=lambda step: step.kind == "evaluate")
    folder, first = make_report(task)
    (folder / "report.html").write_text("old")
    again = make_report(task)[1]
    assert again | {"created": ""} == first | {"created": ""}
    assert "</html>" in (folder / "report.html").read_text()


def test_the_terminal_summary_needs_no_torch() -> None:
    code = "import sys, prox_hpc.report.summary; assert not {'torch', 'numpy', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, prox_hpc.report.task; assert not {'torch', 'transformers', 'lm_eval'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
