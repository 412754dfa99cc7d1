"""Hours and energy from what sacct prints, and by the wall clock where it has nothing."""

from typing import Any

import pytest

from prox_hpc.config import Resources
from prox_hpc.report import usage as usage_module
from prox_hpc.report.collect import Study
from prox_hpc.report.usage import Allocation, Usage, belonging, of_allocations, of_statuses, parse_sacct, total

# As Slurm 22.05 to 24.11 print it with `-D -n -P -o JobID,ElapsedRaw,AllocTRES,ConsumedEnergyRaw,JobName`: an array of
# two whose first task was pre-empted and requeued (the same id twice), its seal, and another study's job of an old id.
PRINTED = """\
12_0|1800|billing=8,cpu=8,gres/gpu=2,gres/gpu:a100=2,mem=64G,node=1|0|refine:web-nano
12_0.batch|1800|cpu=8,gres/gpu=2,mem=64G,node=1|360000|batch
12_0|3600|billing=8,cpu=8,energy=1080000,gres/gpu=2,gres/gpu:a100=2,mem=64G,node=1||refine:web-nano
12_0.0|3599|cpu=8,gres/gpu=2,mem=64G,node=1|1080000|python
12_1|3600|billing=8,cpu=8,gres/gpu:h100=1,mem=64G,node=1|720000|refine:web-nano
13|36|billing=1,cpu=1,mem=2G,node=1|18446744073709551614|refine:web-nano:seal
14|7200|billing=8,cpu=8,gres/gpu=4,mem=64G,node=1|9|pretrain:a|b
15||||refine:web-nano
"""


def test_allocations_count_whatever_became_of_them() -> None:
    rows, _ = parse_sacct(PRINTED)
    assert [(row.job, row.seconds, row.gpus, row.cpus) for row in rows[:3]] == [
        ("12", 1800, 2, 8),
        ("12", 3600, 2, 8),
        ("12", 3600, 1, 8),
    ]
    assert [row.joules for row in rows[:4]] == [360000, 1080000, 720000, None]
    assert rows[4].name == "pretrain:a|b"
    usage = of_allocations(rows[:3])
    assert usage.gpu_hours == pytest.approx(2 * 0.5 + 2 * 1 + 1)
    assert usage.cpu_hours == pytest.approx(8 * 2.5)
    assert usage.kwh == pytest.approx(0.6)
    assert usage.source == "sacct"


def test_energy_that_one_attempt_lacks_is_not_told_as_the_whole() -> None:
    rows, _ = parse_sacct(PRINTED)
    assert of_allocations(rows[:4]).kwh is None
    assert of_allocations(rows[:4]).gpu_hours == pytest.approx(4)


def test_a_step_counts_its_own_jobs_only() -> None:
    rows, _ = parse_sacct(PRINTED)
    own = belonging(rows, {"12", "13", "14"}, "refine:web-nano")
    assert [row.job for row in own] == ["12", "12", "12", "13"], "job 14 has an old id and another step's name"
    assert belonging(rows, {"12", "13"}, "refine:web") == []


def test_by_the_wall_clock_devices_are_those_asked_for() -> None:
    statuses = [{"state": "done", "seconds": 1800.0}, {"state": "running", "started": 100.0, "updated": 1900.0}]
    ask = Resources(nodes=2, processes=4, cpus=8, gpus=4)
    usage = of_statuses(statuses, ask, "cuda")
    assert usage == Usage(gpu_hours=8.0, cpu_hours=64.0, kwh=None, source="wall clock")
    one = of_statuses(statuses[:1], Resources(processes=2), "cuda")
    assert one is not None
    assert one.gpu_hours == 1.0, "a GPU nobody asked for, one of each rank"
    assert of_statuses(statuses[:1], Resources(processes=2), "cpu") == Usage(0.0, 1.0, None, "wall clock")
    assert of_statuses([], ask, "cuda") is None


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    one, other = Usage(1, 2, 0.5, "sacct"), Usage(3, 4, None, "wall clock")
    assert total([one, other]) == Usage(4, 6, None, "sacct and wall clock")
    assert total([one, None]) is None
    assert total([]) is None


def test_energy_is_counted_once_however_many_steps_read_the_same_counter() -> None:
    (row,), odd = parse_sacct(
        "7|60|cpu=2,node=1||a:b\n7.batch|60||500|batch\n7.extern|60||501|extern\n7.0|59||498|python"
    )
    assert (row.joules, odd) == (501, 0)


def test_lines_that_cannot_be_read_are_counted_and_left_out() -> None:
    odd = "\n   \nslurm_load: error\n9|soon|cpu=1|0|a:b\n8|60|cpu=2,mem=4G|0|a:b\n"
    assert parse_sacct(odd) == ([Allocation("8", "a:b", 60, 0, 2)], 2)


def test_a_step_whose_records_are_gone_in_part_is_told_by_the_wall_clock(fabricate: Any, monkeypatch: Any) -> None:
    """The refine step's task ran for 12.5 s; accounting holds 5 s of it, then all."""
    study = Study.of(fabricate(overrides=("arm=[raw,prox_dc]",)))
    address = study.roles["refine"]
    (study.store / "steps" / address / "claim.json").write_text('{"jobs": ["77"]}')
    step = study.steps[address]
    for held, source in ((5, "wall clock"), (13, "sacct")):
        row = Allocation("77", f"{step['kind']}:{step['name']}", held, 1, 4)
        monkeypatch.setattr(usage_module, "ask_sacct", lambda jobs, row=row: ([row], ""))
        usages, why = usage_module.used(study)
        assert usages[address].source == source
        assert why == (f"sacct has no records of some tasks of {row.name}" if source == "wall clock" else "")
