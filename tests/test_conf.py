"""Every shipped YAML composes, and the shapes it names are the paper's."""

from dataclasses import asdict
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from prox_hpc import config, programs
from prox_hpc.config import Config
from prox_hpc.launch import conf_dir, typed
from prox_hpc.study.plan import PROFILES, plan_study
from tests.conftest import Command

OPTIONS = sorted(
    (path.parent.name, path.stem) for path in Path(conf_dir()).glob("*/*.yaml") if path.parent.name != "hydra"
)
GIVEN = ["refiner.doc_model=d", "refiner.chunk_model=c", "trainee.tokenizer=t"]
NEEDED = {
    **{("refiner", name): GIVEN for name in ("xs", "s", "m")},
    **{("refiner", name): ["trainee.tokenizer=t"] for name in ("prox_web", "prox_math")},
    **{("trainee", name): ["trainee.tokenizer=t"] for name in ("tlm_xs", "tlm_s", "tlm_m")},
    **{
        ("corpus", name): ["corpus.path=p", "arm=[raw,prox_dc]"]
        for name in ("files", "redpajama_v2", "c4", "fineweb", "fineweb_edu", "dclm", "openwebmath")
    },
    ("evaluation", "files"): ["evaluation.path=p"],
    ("experiment", "refiner_size"): ["corpus.path=p", *GIVEN],
    **{("experiment", name): ["corpus.path=p", "trainee.tokenizer=t"] for name in ("table2_rules", "corpora", "flops")},
    ("experiment", "math_cpt"): ["corpus.path=p", "evaluation.path=p"],
    ("experiment", "real_pages"): ["corpus.path=p", "evaluation.path=p"],
    ("scale", "nano_pages"): ["corpus.path=p", "refiner.seed_corpus.path=p", "evaluation.path=p"],
}
FILES = {"files": [{"path": "p", "size": 1, "mtime": 0, "rows": 1}]}


def composed(*overrides: str) -> Config:
    ConfigStore.instance().store(name="base_config", node=Config)
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return typed(compose("config", list(overrides)))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_plans(group: str, option: str) -> None:
    choice = f"{group}={option}"
    if group == "arm":  # some are to be like prox_dc
        choice = f"arm=[raw,prox_dc,{option}]" if option in ("random", "classifier") else f"arm=[{option}]"
    config = composed(choice, *NEEDED.get((group, option), []))
    plan = plan_study(config, lambda corpus: FILES, lambda described: 3)
    assert plan.steps[-1].kind == "report"
    seen: set[str] = set()
    for step in plan:
        assert set(step.inputs.values()) <= seen, f"{step.address} comes before its inputs"
        seen.add(step.address)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(Exception, match="documnts"):
        composed("corpus.documnts=3")


def test_wrong_types_are_refused() -> None:
    with pytest.raises(Exception, match="many"):
        composed("corpus.documents=many")


def test_no_yaml_holds_a_value_the_schema_lacks() -> None:
    config = OmegaConf.structured(Config)
    for path in Path(conf_dir()).glob("*/*.yaml"):
        if path.parent.name in ("experiment", "scale", "arm"):
            continue
        OmegaConf.merge(config, {path.parent.name: OmegaConf.load(path)})


@pytest.mark.parametrize(("refiner", "trainee"), [("xs", "tlm_xs"), ("s", "tlm_s"), ("m", "tlm_m")])
def test_refiners_have_the_shapes_of_the_trainees_they_are_made_from(refiner: str, trainee: str) -> None:
    both = composed(f"refiner={refiner}", f"trainee={trainee}")
    assert both.refiner.shape == both.trainee.shape


def test_help_names_every_group_and_option(launch: Command) -> None:
    done = launch("--help")
    assert done.returncode == 0
    for group, option in OPTIONS:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"  {group}: ")]
        assert option in line.split(": ")[1].split(", ")
    assert "prox_hpc.status" in done.stdout


def test_settings_of_the_program_language_are_the_language_s() -> None:
    assert asdict(config.Caps()) == asdict(programs.Caps())
    assert asdict(config.Checks()) == asdict(programs.DocumentChecks())
    assert PROFILES == programs.PROFILES


def test_checks_and_thresholds_of_an_arm() -> None:
    own = composed("arm.prox_dc.checks.min_words=3", "arm.prox_dc.doc_threshold=0.5", "refiner.checks.max_removed=0.8")
    plan = plan_study(own, lambda corpus: FILES, lambda described: 1)
    (arm,) = (step.config["arm"] for step in plan if step.name == "prox_dc" and step.kind == "execute")
    assert arm["checks"] == {"max_removed": 0.8, "min_words": 3}
    assert arm["doc_threshold"] == 0.5
    assert arm["caps"] == asdict(programs.Caps())
