"""The shipped trainees have the paper's parameter counts, steps and learning rates (its Tables 8 and 9)."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from prox_hpc.config import Trainee
from prox_hpc.launch import conf_dir
from prox_hpc.train.schedule import batch_rows, check, learning_rate, schedule_steps, steps
from prox_hpc.train.shapes import count_parameters


def trainee(name: str) -> Trainee:
    file = OmegaConf.load(Path(conf_dir()) / "trainee" / f"{name}.yaml")
    found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Trainee), file))
    assert isinstance(found, Trainee)
    assert found.name == name
    return found


@pytest.mark.parametrize(
    ("name", "total", "minus_one_embedding"),
    [
        ("tlm_xs", 354_284_800, 313_324_800),
        ("tlm_s", 758_982_144, 709_830_144),
        ("tlm_m", 1_741_785_088, 1_676_249_088),
        ("pythia_410m", 405_334_016, 353_822_720),
        ("pythia_1b", 1_011_781_632, 908_759_040),
        ("tlm_micro", 5_004_032, 4_479_744),
    ],
)
def test_parameters(name: str, total: int, minus_one_embedding: int) -> None:
    counts = count_parameters(trainee(name).shape)
    assert (counts.total, counts.minus_one_embedding) == (total, minus_one_embedding)


@pytest.mark.parametrize(
    ("name", "rows", "context", "ran", "planned", "warmup", "top", "low"),
    [
        ("tlm_xs", 1024, 2048, 12_500, 12_500, 500, 5e-4, 5e-5),
        ("tlm_s", 1024, 2048, 12_500, 12_500, 500, 5e-4, 5e-5),  # 5e-6 in the paper, 5e-5 in its code
        ("tlm_m", 1024, 2048, 12_500, 12_500, 500, 3e-4, 3e-5),
        ("pythia_410m", 512, 1024, 50_200, 50_200, 2000, 1e-3, 6.25e-5),
        ("pythia_1b", 512, 1024, 50_200, 50_200, 2000, 1e-3, 6.25e-5),
        ("tinyllama_cpt", 1024, 2048, 7500, 7500, 0, 8e-5, 8e-6),
        ("llama2_7b_cpt", 256, 4096, 10_000, 15_000, 0, 8e-5, 8e-6),
        ("codellama_7b_cpt", 1024, 4096, 2500, 3750, 0, 3e-4, 3e-5),
        ("mistral_7b_cpt", 256, 4096, 10_000, 15_000, 0, 2e-5, 2e-6),
    ],
)
def test_steps_and_learning_rates(
    name: str, rows: int, context: int, ran: int, planned: int, warmup: int, top: float, low: float
) -> None:
    settings = trainee(name).training
    check(settings, 64)
    assert (batch_rows(settings), settings.context) == (rows, context)
    assert (steps(settings), schedule_steps(settings), settings.warmup_steps) == (ran, planned, warmup)
    rates = [learning_rate(settings, step) for step in range(planned)]
    assert (max(rates), rates[warmup]) == pytest.approx((top, top))
    assert rates[-1] == pytest.approx(low, rel=1e-5)
    if planned > ran:  # it stops while the rate is still well above the end
        assert rates[ran] > 2 * low
    betas = (settings.beta1, settings.beta2, settings.weight_decay, settings.grad_clip)
    assert betas == (0.9, 0.95, 0.1, 1.0)


def test_pythia_keeps_its_rate_up_to_the_last_200_steps() -> None:
    settings = trainee("pythia_410m").training
    rates = [learning_rate(settings, step) for step in (1999, 2000, 49_999, 50_000, 50_099, 50_199)]
    assert rates[:3] == [1e-3] * 3
    assert rates[3:] == pytest.approx([1e-3 * 0.5 ** (4 * t / 200) for t in (1, 100, 200)])
