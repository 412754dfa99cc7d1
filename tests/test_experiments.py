"""The shipped experiments: they are the paper's, and each is small enough for this machine at nano scale."""

import re
import shlex
from itertools import product
from pathlib import Path

import pytest

from prox_hpc.config import Config
from prox_hpc.launch import conf_dir
from prox_hpc.study.plan import Plan, plan_study
from tests.conftest import Command
from tests.test_conf import FILES, composed

PAPER = ("table2_rules", "refiner_size", "corpora", "flops", "math_cpt")
RAW_AND_REFINED = ["raw", "prox_dc"]
TABLE_2 = ["raw", "gopher", "c4", "fineweb", "rules", "prox_d", "prox_c", "prox_dc", "random", "classifier"]


def planned(config: Config) -> Plan:
    return plan_study(config, lambda corpus: FILES, lambda described: 3)


def commands(experiment: str) -> list[list[str]]:
    """The overrides of each command at the head of an experiment's file."""
    text = (Path(conf_dir()) / "experiment" / f"{experiment}.yaml").read_text()
    comment = "\n".join(re.findall(r"^# ?(.*)$", text, re.MULTILINE)).replace("\\\n", " ")
    found = re.findall(r"^ *python -m prox_hpc\.launch (.*)$", comment, re.MULTILINE)
    assert found, f"{experiment}: no command at its head"
    return [shlex.split(line.replace("cluster=mysite", "cluster=slurm")) for line in found]


def points(overrides: list[str]) -> list[list[str]]:
    """The points of a multirun (`-m`), or the one study."""
    if "-m" not in overrides:
        return [overrides]
    swept = [[f"{key}={value}" for value in values.split(",")] for key, values in
             (item.split("=", 1) for item in overrides if item != "-m")]  # fmt: skip
    return [list(point) for point in product(*swept)]


@pytest.mark.parametrize("experiment", PAPER)
def test_every_command_at_the_head_of_a_file_composes_and_plans(experiment: str) -> None:
    full, nano = commands(experiment)
    assert "scale=nano" in nano
    assert "scale=nano" not in full
    for point in (*points(full), *points(nano)):
        assert f"experiment={experiment}" in point
        assert planned(composed(*point)).steps[-1].kind == "report"


@pytest.mark.parametrize(
    ("experiment", "arms", "corpora", "trainees", "tokens"),
    [
        ("table2_rules", TABLE_2, {"redpajama_v2"}, {"tlm_s"}, {26_214_400_000}),
        ("refiner_size", RAW_AND_REFINED, {"redpajama_v2"}, {"tlm_xs", "tlm_s", "tlm_m"}, {26_214_400_000}),
        (
            "corpora", RAW_AND_REFINED, {"redpajama_v2", "c4", "fineweb", "fineweb_edu", "dclm"}, {"tlm_m"},
            {52_428_800_000},
        ),
        ("flops", RAW_AND_REFINED, {"redpajama_v2"}, {"tlm_xs", "tlm_s", "tlm_m"}, {26_214_400_000}),
    ],
)  # fmt: skip
def test_an_experiment_has_the_papers_arms_models_and_budget(
    experiment: str, arms: list[str], corpora: set[str], trainees: set[str], tokens: set[int]
) -> None:
    found = [composed(*point) for point in points(commands(experiment)[0])]
    assert all(list(config.arm) == arms for config in found)
    assert {config.corpus.name for config in found} == corpora
    assert {config.trainee.name for config in found} == trainees
    assert {config.trainee.training.tokens for config in found} == tokens
    assert all(config.evaluation.metric == "prox_ten" for config in found)


def test_math_is_continual_pre_training_with_math_refiners() -> None:
    found = [composed(*point) for point in points(commands("math_cpt")[0])]
    assert len(found) == 4
    assert all(config.trainee.model and config.trainee.tokenizer for config in found)
    assert {config.refiner.name for config in found} == {"prox_math"}
    assert all(list(config.arm) == ["raw", "rules", "prox_d", "prox_dc"] for config in found)
    # the paper's runs: 7,500 steps of 1,024 x 2,048, 10,000 of 256 x 4,096, 2,500 of 1,024 x 4,096 tokens
    assert {config.trainee.name: config.trainee.training.tokens for config in found} == {
        "tinyllama_cpt": 7_500 * 1_024 * 2_048,
        "llama2_7b_cpt": 10_000 * 256 * 4_096,
        "codellama_7b_cpt": 2_500 * 1_024 * 4_096,
        "mistral_7b_cpt": 10_000 * 256 * 4_096,
    }


@pytest.mark.parametrize("scale", ["nano", "tiny"])
@pytest.mark.parametrize("experiment", PAPER)
def test_a_scale_makes_an_experiment_small_and_keeps_its_arms(experiment: str, scale: str) -> None:
    small = composed(f"experiment={experiment}", f"scale={scale}")
    nano = composed("trainee=tlm_nano").trainee
    assert list(small.arm) == list(composed(*points(commands(experiment)[0])[0]).arm)
    assert (small.corpus.kind, small.refiner.train, small.evaluation.kind) == ("generated", True, "world")
    assert (small.trainee.name, small.trainee.shape, small.trainee.model) == ("tlm_nano", nano.shape, None)
    assert small.trainee.training.tokens <= 500_000
    assert small.trainee.training.checkpoints <= 6
    # ten runs of half a million tokens are six minutes here, the refiner and refining five
    assert sum(step.kind == "pretrain" for step in planned(small)) <= (10 if scale == "nano" else 20)


def test_scales_keep_their_studies_apart() -> None:
    folders = [composed("experiment=flops", *scale).run_dir for scale in ((), ("scale=nano",), ("scale=tiny",))]
    assert [Path(str(folder)).name for folder in folders] == ["flops", "flops_nano", "tiny"]


def test_real_pages_stay_real_pages_at_any_scale() -> None:
    paths = ("corpus.path=p", "evaluation.path=p")
    plain, tiny = composed("experiment=real_pages", *paths), composed("experiment=real_pages", "scale=tiny", *paths)
    for config in (plain, tiny):
        assert (config.corpus.kind, config.corpus.keep_column, config.evaluation.kind) == ("files", "keep", "files")
        assert (config.evaluation.tasks, config.evaluation.metric) == (["world_bpb"], "world_bpb")
    assert tiny.trainee.training.tokens < plain.trainee.training.tokens


PAGES = ("scale=nano_pages", "corpus.path=p", "refiner.seed_corpus.path=p", "evaluation.path=p")


@pytest.mark.parametrize("experiment", PAPER)
def test_an_experiment_runs_on_real_pages_at_nano_scale(experiment: str) -> None:
    pages, web = composed(f"experiment={experiment}", *PAGES), composed(f"experiment={experiment}", "scale=nano")
    assert (pages.arm, pages.trainee, pages.refiner.training) == (web.arm, web.trainee, web.refiner.training)
    read = (pages.corpus, pages.refiner.seed_corpus)
    assert all((c.kind, c.text_column, c.keep_column, c.drop_below) == ("files", "lines", "keep", 0.3) for c in read)
    assert (pages.evaluation.kind, pages.evaluation.keep_column) == ("files", "keep")
    assert (pages.evaluation.tasks, pages.evaluation.metric) == (["world_bpb"], "world_bpb")
    assert pages.run_dir != web.run_dir
    assert pages.refiner.doc_retention == 0.8
    assert planned(pages).steps[-1].kind == "report"


def test_the_nano_command_of_a_sweep_prints_a_plan_for_each_point(launch: Command, tmp_path: Path) -> None:
    done = launch(*commands("flops")[1], "dry_run=true", f"output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pretrain/tlm_nano-raw-seed1") == 3
    assert not (tmp_path / "out" / "store").exists()
