"""Known failure signatures raise alarms that show the command to look at them; a usual study raises none."""

import copy
from pathlib import Path
from typing import Any

from prox_hpc.config import Alarms
from prox_hpc.report.alarms import alarms

Report = tuple[Path, dict[str, Any]]


def names(report: dict[str, Any], limits: Alarms | None = None) -> list[str]:
    return [alarm["name"] for alarm in alarms(report, limits or Alarms())]


def test_a_usual_study_raises_none(whole: Report) -> None:
    assert whole[1]["alarms"] == names(whole[1]) == []


def test_a_bad_refiner(whole: Report) -> None:
    report = copy.deepcopy(whole[1])
    report["refiner"]["doc"]["f1"], report["refiner"]["line"]["f1"] = 0.6, 0.5
    assert names(report) == ["doc_f1", "line_f1"]
    found = alarms(report, Alarms())
    assert "F1 of 0.600 against gold, below 0.75" in found[0]["text"]
    assert found[1]["commands"][0].endswith("--op remove_lines")
    assert names(report, Alarms(doc_f1=0.5, line_f1=0.5)) == []


def test_failed_programs_name_the_command_that_shows_them(whole: Report) -> None:
    report = copy.deepcopy(whole[1])
    report["programs"]["programs"]["chunk"] |= {"malformed": 100}
    report["run"] = "/runs/it's mine"
    (found,) = alarms(report, Alarms())
    assert found["value"] == 104 / 1425
    assert found["commands"][0] == """python -m prox_hpc.inspect '/runs/it'"'"'s mine' --status malformed"""
    assert found["commands"][1].endswith("--status truncated")


def test_any_quarantined_document(whole: Report) -> None:
    report = copy.deepcopy(whole[1])
    report["programs"]["reasons"]["quarantined"] = 3
    (found,) = alarms(report, Alarms())
    assert found["name"] == "quarantined"
    assert found["text"].startswith("3 documents (0.15 %) were quarantined")
    assert found["commands"] == [f"python -m prox_hpc.inspect {report['run']} --reason quarantined"]
    assert names(report, Alarms(quarantined=0.01)) == []


def test_less_kept_and_a_lower_score(whole: Report) -> None:
    report = copy.deepcopy(whole[1])
    report["metrics"][0]["curves"]["prox_dc"]["mean"][-1] = 0.5 * report["metrics"][0]["curves"]["raw"]["mean"][-1]
    (found,) = alarms(report, Alarms())
    assert found["name"] == "score_drop"
    assert found["text"].startswith(
        "prox_dc keeps 55.2 % of the tokens and raw 100.0 %, but its world_cloze is 50.0 % worse"
    )
    kept = next(row for row in report["arms"] if row["arm"] == "prox_dc")
    kept["token_retention"] = 1.0
    assert names(report) == [], "it keeps all: the score has another reason"


def test_lower_is_better_for_bits_per_byte(whole: Report) -> None:
    report = copy.deepcopy(whole[1])
    report["metrics"] = report["metrics"][::-1]
    assert report["metrics"][0]["task"] == "world_bpb"
    assert names(report) == []
    report["metrics"][0]["curves"]["prox_dc"]["mean"][-1] *= 2
    assert names(report) == ["score_drop"]


def test_many_epochs(whole: Report) -> None:
    report = copy.deepcopy(whole[1])
    report["arms"][2]["epochs"] = 5.5
    assert names(report) == ["epochs"]
