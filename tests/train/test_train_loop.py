"""The loop on real DeepSpeed process groups: one and two ranks, killed and resumed, exported and loaded again."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prox_hpc.config import Shape, Training
from prox_hpc.errors import UserError
from prox_hpc.task import Step, Task
from prox_hpc.train.data import Examples, Packed
from prox_hpc.train.loop import forget, train
from prox_hpc.train.shapes import build_model, count_parameters

SHAPE = Shape(64, 128, 2, 2, 1, 256, 64)
TRAINING: dict[str, Any] = {
    "tokens": 12 * 1024,
    "context": 64,
    "batch_tokens": 1024,
    "micro_batch": 4,
    "warmup_steps": 3,
    "checkpoints": 3,
}


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ids that can be learnt: each follows from the one before, with a little noise."""
    rng = np.random.default_rng(0)
    noise = np.where(rng.random(9000) < 0.1, rng.integers(0, 250, 9000), 3)
    path = tmp_path_factory.mktemp("tokens") / "0.bin"
    path.write_bytes((np.cumsum(noise) % 250).astype("<u2").tobytes())
    return path


def run_ranks(
    store: Path, tokens: Path, ranks: int, die_at: int | None = None, **training: Any
) -> list[subprocess.CompletedProcess[str]]:
    """Start so many processes of rank.py as one DeepSpeed job and wait for all of them."""
    store.mkdir(exist_ok=True)
    settings = store / "settings.json"
    given = {"store": str(store), "tokens": str(tokens), "training": TRAINING | training, "die_at": die_at}
    settings.write_text(json.dumps(given))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("rank.py")), str(settings)]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(ranks)
    ]
    done = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        done.append(subprocess.CompletedProcess(command, process.returncode, out, err))
    return done


def artifact(store: Path) -> Path:
    return Task(Step("pretrain", "run", {}), 0, store).out


def losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def trajectory(folder: Path) -> list[tuple[Any, ...]]:
    return [tuple(line[key] for key in ("step", "loss", "lr", "grad_norm", "tokens")) for line in losses(folder)]


@pytest.fixture(scope="session")
def two_ranks(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifact of an uninterrupted run on two ranks."""
    store = tmp_path_factory.mktemp("two")
    for done in run_ranks(store, tokens, 2):
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""  # quiet
    return artifact(store)


@pytest.fixture(scope="session")
def one_rank(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifact of the same run in this process, without a launcher."""
    task = Task(Step("pretrain", "run", {}), 0, tmp_path_factory.mktemp("one"))
    stream = Packed([tokens], "<u2", TRAINING["context"], seed=1)
    train(build_model(SHAPE, seed=1, eos_token_id=0), stream, Training(**TRAINING), task, tokenizer=None)
    return task.out


def test_one_and_two_ranks_take_the_same_path(one_rank: Path, two_ranks: Path) -> None:
    one, two = losses(one_rank), losses(two_ranks)
    assert [line["step"] for line in two] == list(range(1, 13))
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-3)
    assert [line["grad_norm"] for line in two] == pytest.approx([line["grad_norm"] for line in one], rel=1e-2)
    assert [line["tokens"] for line in two] == [1024 * step for step in range(1, 13)]
    assert one[-1]["loss"] < one[0]["loss"] - 1  # it learns


def test_a_killed_run_goes_on_exactly(two_ranks: Path, tokens: Path, tmp_path: Path) -> None:
    killed = run_ranks(tmp_path, tokens, 2, die_at=6)  # two steps after the state saved at step 4
    assert -signal.SIGKILL in [done.returncode for done in killed]
    task = Task(Step("pretrain", "run", {}), 0, tmp_path)
    assert len(losses(task.state / "resume")) == 6
    assert [path.name for path in (task.out / "checkpoints").iterdir()] == ["step-000004"]
    (task.state / "resume" / "step-000008").mkdir()  # as if it had died while saving
    with (task.state / "resume" / "losses.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')

    for done in run_ranks(tmp_path, tokens, 2):
        assert done.returncode == 0, done.stderr
    assert trajectory(task.out) == trajectory(two_ranks)
    for step in (4, 8, 12):
        ours, theirs = (
            load_file(x / "checkpoints" / f"step-{step:06d}" / "model.safetensors") for x in (task.out, two_ranks)
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    with pytest.raises(UserError, match="saved by 2 ranks, this run has 1"):
        train(build_model(SHAPE, 1), Packed([tokens], "<u2", 64, 1), Training(**TRAINING), task, tokenizer=None)


def test_an_exported_checkpoint_gives_the_loss_of_the_next_step(one_rank: Path, tokens: Path) -> None:
    folder = one_rank / "checkpoints" / "step-000008"
    about = json.loads((folder / "checkpoint.json").read_text())
    counts = count_parameters(SHAPE)
    assert about["step"] == 8
    assert about["tokens"] == 8 * 1024
    assert about["flops"] == 6 * counts.minus_one_embedding * 8 * 1024 < about["exact_flops"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    batch = Packed([tokens], "<u2", TRAINING["context"], seed=1).batch(8 * 16, 16)
    with torch.no_grad():
        logits = model(torch.from_numpy(batch.input_ids)).logits.float()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.labels).flatten())
    assert float(loss) == pytest.approx(losses(one_rank)[8]["loss"], abs=1e-3)


def test_summary_and_state_left_behind(tokens: Path, tmp_path: Path) -> None:
    task = Task(Step("pretrain", "run", {}), 0, tmp_path)
    stream = Packed([tokens], "<u2", 64, seed=1)
    settings = Training(
        **TRAINING | {"tokens": 2000, "dtype": "fp32", "zero_stage": 0, "warmup_steps": 0, "checkpoints": 1}
    )
    first = train(build_model(SHAPE, seed=1), stream, settings, task, tokenizer=None)
    assert (first.steps, first.tokens, first.rows, first.epochs) == (2, 2048, 32, 32 / stream.rows)
    assert first.loss == pytest.approx(np.mean([line["loss"] for line in losses(task.out)]))
    assert first.parameters["total"] == count_parameters(SHAPE).total
    assert first.flops == 6 * count_parameters(SHAPE).minus_one_embedding * 2048
    # started again after it had finished: nothing is trained again, the same summary comes out
    again = train(build_model(SHAPE, seed=1), stream, settings, task, tokenizer=None)
    assert again == first
    assert (task.state / "resume").exists()
    forget(task)
    assert not (task.state / "resume").exists()
    assert AutoModelForCausalLM.from_pretrained(task.out / "checkpoints/step-000002").dtype == torch.float32


def test_fine_tuning_learns_answers_and_exports_the_last_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [([7, key, 8], [key + 100] * 3) for key in rng.integers(10, 60, 400).tolist()]
    data = Examples(pairs, 64, seed=0, eos=0, lm_weight=0.05)
    settings = Training(**TRAINING | {"tokens": 40 * 1024, "learning_rate": 1e-2, "min_learning_rate": 1e-3})
    task = Task(Step("adapt", "run", {}), 0, tmp_path)
    summary = train(build_model(SHAPE, 0), data, settings, task, tokenizer=None, export_last=task.out / "model")
    lines = losses(task.out)
    assert 0.85 * 40 * 1024 < summary.tokens == lines[-1]["tokens"] < 40 * 1024  # without padding
    assert lines[0]["answer_loss"] > 4
    assert lines[-1]["answer_loss"] < 0.5
    assert lines[-1]["loss"] > lines[-1]["answer_loss"]  # the page cannot be guessed
    assert not (task.out / "checkpoints").exists()
    model = AutoModelForCausalLM.from_pretrained(task.out / "model")
    answer = model.generate(torch.tensor([[7, 33, 8]]), max_new_tokens=4, do_sample=False)[0, 3:].tolist()
    assert answer == [133, 133, 133, 0]


def test_divergence_ends_with_the_step_and_the_remedy(tokens: Path, tmp_path: Path) -> None:
    task = Task(Step("pretrain", "run", {}), 0, tmp_path)
    model = build_model(SHAPE, 0)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"loss at step 1 is nan.*lower training\.learning_rate=0\.003"):
        train(model, Packed([tokens], "<u2", 64, 0), Training(**TRAINING), task, tokenizer=None)
    assert not (task.out / "losses.jsonl").exists()


def test_contexts_must_agree(tokens: Path, tmp_path: Path) -> None:
    task = Task(Step("pretrain", "run", {}), 0, tmp_path)
    with pytest.raises(UserError, match=r"training\.context=64: .* rows of 32"):
        train(build_model(SHAPE, 0), Packed([tokens], "<u2", 32, 0), Training(**TRAINING), task, tokenizer=None)
    longer = Training(**TRAINING | {"context": 128, "micro_batch": 2})
    with pytest.raises(UserError, match="at most 64 positions"):
        train(build_model(SHAPE, 0), Packed([tokens], "<u2", 128, 0), longer, task, tokenizer=None)


def test_every_token_is_trained(one_rank: Path) -> None:
    """transformers freezes the embedding of a padding token; the EOS must not be taken for one."""
    before = build_model(SHAPE, 1).get_input_embeddings().weight.to(torch.bfloat16)
    folder = one_rank / "checkpoints" / "step-000012"
    after = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    assert (before[:250] != after[:250]).any(dim=1).all()


def test_a_missing_gpu_is_told(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # read when CUDA is first asked for: no GPU, on any machine
    task = Task(Step("pretrain", "run", {}), 0, tmp_path)
    with pytest.raises(UserError, match="torch sees no GPU"):
        train(
            build_model(SHAPE, 0),
            Packed([tokens], "<u2", 64, 0),
            Training(**TRAINING),
            task,
            tokenizer=None,
            device="cuda",
        )
