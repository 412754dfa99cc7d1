"""The loop on real DeepSpeed process groups: one and two ranks, killed and resumed, exported and loaded again."""

import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prox_hpc.config import Shape, Training
from prox_hpc.errors import UserError
from prox_hpc.stop import Interrupted
from prox_hpc.task import Step, Task
from prox_hpc.train import loop, tracker
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


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Its path is full of what patterns give a meaning to, which DeepSpeed takes paths for."""
    folder = tmp_path / "a+b [c] (d) *?.$ {e}"
    folder.mkdir()
    return folder


def run_ranks(
    store: Path, tokens: Path, ranks: int, meet: dict[str, Any] | None = None, **training: Any
) -> list[subprocess.CompletedProcess[str]]:
    """Start so many processes of rank.py as one DeepSpeed job and wait for all; after a failure the others are killed.

    meet: what happens to them (see rank.py).
    """
    store.mkdir(exist_ok=True)
    settings = store / "settings.json"
    given = {"store": str(store), "tokens": str(tokens), "training": TRAINING | training, "meet": meet}
    settings.write_text(json.dumps(given))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("rank.py")), str(settings)]
    processes = []
    for rank in range(ranks):
        own = {**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        with (store / f"{rank}.out").open("w") as out, (store / f"{rank}.err").open("w") as err:
            processes.append(subprocess.Popen(command, env=own, stdout=out, stderr=err))
    deadline = time.monotonic() + 300
    while None in [process.poll() for process in processes]:
        if any(process.poll() for process in processes):
            deadline = min(deadline, time.monotonic() + 5)  # the others may be on their way out
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    told = [[(store / f"{rank}.{name}").read_text() for name in ("out", "err")] for rank in range(ranks)]
    return [
        subprocess.CompletedProcess(command, process.returncode, *texts)
        for process, texts in zip(processes, told, strict=True)
    ]


def finished(store: Path, tokens: Path, ranks: int, **training: Any) -> Path:
    """Artifact of a run on so many ranks that is started and comes to its end."""
    for done in run_ranks(store, tokens, ranks, **training):
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""  # quiet
    return artifact(store)


def artifact(store: Path) -> Path:
    return Task(Step("pretrain", "run", {}), 0, store).out


def losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def trajectory(folder: Path) -> list[tuple[Any, ...]]:
    return [tuple(line[key] for key in ("step", "loss", "lr", "grad_norm", "tokens")) for line in losses(folder)]


@pytest.fixture(scope="session")
def two_ranks(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifact of an uninterrupted run on two ranks."""
    return finished(tmp_path_factory.mktemp("two"), tokens, 2)


@pytest.fixture(scope="session")
def one_rank(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifact of the same run on one rank."""
    return finished(tmp_path_factory.mktemp("one"), tokens, 1)


def in_process(store: Path, block: Path, task: Task | None = None, **training: Any) -> Path:
    """Train in this process, without a launcher; -> the artifact."""
    task = task or Task(Step("pretrain", "run", {}), 0, store)
    settings = Training(**TRAINING | training)
    stream = Packed([block], "<u2", settings.context, seed=1)
    train(build_model(SHAPE, seed=1, eos_token_id=0), stream, settings, task, tokenizer=None)
    return task.out


def resume_state(store: Path) -> dict[str, Any]:
    folder = Task(Step("pretrain", "run", {}), 0, store).state / "resume"
    state: dict[str, Any] = json.loads((folder / "resume.json").read_text())
    assert [path.name for path in folder.glob("*-*")] == [state["tag"]]  # older and converted ones are gone
    return state


def test_one_and_two_ranks_take_the_same_path(one_rank: Path, two_ranks: Path) -> None:
    one, two = losses(one_rank), losses(two_ranks)
    assert [line["step"] for line in two] == list(range(1, 13))
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-3)
    assert [line["grad_norm"] for line in two] == pytest.approx([line["grad_norm"] for line in one], rel=1e-2)
    assert [line["tokens"] for line in two] == [1024 * step for step in range(1, 13)]
    assert one[-1]["loss"] < one[0]["loss"] - 1  # it learns


def same_run(ours: Path, theirs: Path) -> None:
    """Bit for bit, the exported weights as well."""
    assert trajectory(ours) == trajectory(theirs)
    for step in (4, 8, 12):
        mine, other = (load_file(x / "checkpoints" / f"step-{step:06d}" / "model.safetensors") for x in (ours, theirs))
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_run_killed_and_then_told_to_end_goes_on_exactly(two_ranks: Path, tokens: Path, store: Path) -> None:
    killed_at = random.randrange(1, 8)
    told_at = random.randrange(killed_at, 11)
    print("killed at", killed_at, "told to end at", told_at)  # shown when the test fails
    kill = {"step": killed_at, "rank": None, "signal": signal.SIGKILL}
    killed = run_ranks(store, tokens, 2, kill, save_steps=3)
    assert -signal.SIGKILL in [done.returncode for done in killed]
    task = Task(Step("pretrain", "run", {}), 0, store)
    saved = max((step for step in (3, 4, 6) if step < killed_at), default=None)
    if saved:
        assert resume_state(store)["step"] == saved
    (task.state / "resume" / "step-000008").mkdir()  # as if it had died while saving
    with (task.state / "resume" / "losses.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')

    tell = {"step": told_at, "rank": 1, "signal": signal.SIGTERM}
    ended = run_ranks(store, tokens, 2, tell, save_steps=3)
    assert [done.returncode for done in ended] == [os.EX_TEMPFAIL] * 2, ended[0].stderr
    assert f"the state after step {told_at + 1} of 12 is saved" in ended[0].stderr
    assert resume_state(store)["step"] == told_at + 1

    same_run(finished(store, tokens, 2, save_steps=3), two_ranks)


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [(1, {}), (1, {"compile": True}), (2, {"zero_stage": 3})],
    ids=["one rank", "compiled", "stage 3"],
)
def test_a_killed_run_goes_on_exactly(
    ranks: int, settings: dict[str, Any], one_rank: Path, tokens: Path, tmp_path: Path
) -> None:
    whole = finished(tmp_path / "whole", tokens, ranks, **settings) if settings else one_rank
    killed_at = random.randrange(1, 12)
    print("killed at", killed_at)
    store, kill = tmp_path / "killed", {"step": killed_at, "rank": None, "signal": signal.SIGKILL}
    assert run_ranks(store, tokens, ranks, kill, save_steps=2, **settings)[0].returncode == -signal.SIGKILL
    same_run(finished(store, tokens, ranks, **settings), whole)


class TellingTask(Task):
    """Is told to end after a step."""

    tell_at = 0

    def progress(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        super().progress(done, total, unit, **figures)
        if done == self.tell_at:
            self.stop.end()


# Between uninterrupted runs on one and two ranks (12 steps) lie 5e-6 in fp32 and 3e-4 in bf16.
@pytest.mark.parametrize(("zero_stage", "dtype", "bound"), [(1, "bf16", 5e-4), (2, "fp32", 5e-6), (3, "fp32", 5e-6)])
def test_another_number_of_ranks_goes_on_within_rounding(
    zero_stage: int, dtype: str, bound: float, one_rank: Path, fp32_run: Path, tokens: Path, store: Path
) -> None:
    settings = {"zero_stage": zero_stage, "dtype": dtype, "checkpoints": 2, "save_steps": 7}
    task = TellingTask(Step("pretrain", "run", {}), 0, store)
    task.tell_at = 3
    with pytest.raises(Interrupted, match="after step 4 of 12"):
        in_process(store, tokens, task, **settings)
    assert (resume_state(store)["step"], resume_state(store)["world_size"]) == (4, 1)

    killed = run_ranks(store, tokens, 2, {"step": 9, "rank": None, "signal": signal.SIGKILL}, **settings)
    assert -signal.SIGKILL in [done.returncode for done in killed], killed[0].stderr
    assert [done.stdout for done in killed] == ["", ""]  # converting is quiet
    assert (resume_state(store)["step"], resume_state(store)["world_size"]) == (7, 2)

    ours = losses(in_process(store, tokens, **settings))
    theirs = losses(one_rank if dtype == "bf16" else fp32_run)
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in theirs], abs=bound)
    assert [line["step"] for line in ours] == list(range(1, 13))
    if dtype == "fp32":  # what is exported is what was trained, however the ranks share it
        mine, other = (load_file(out / "checkpoints/step-000012/model.safetensors") for out in (task.out, fp32_run))
        assert mine.keys() == other.keys()
        assert all(torch.allclose(mine[name], other[name], atol=1e-4) for name in mine)
    assert sorted(path.name for path in (task.out / "checkpoints").iterdir()) == ["step-000006", "step-000012"]


def test_a_run_goes_on_with_other_micro_batches(one_rank: Path, tokens: Path, tmp_path: Path) -> None:
    task = TellingTask(Step("pretrain", "run", {}), 0, tmp_path)
    task.tell_at = 5
    with pytest.raises(Interrupted):
        in_process(tmp_path, tokens, task)
    ours = losses(in_process(tmp_path, tokens, micro_batch=16))
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in losses(one_rank)], abs=5e-4)


@pytest.fixture(scope="session")
def fp32_run(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_process(tmp_path_factory.mktemp("fp32"), tokens, dtype="fp32")


def test_a_stalled_rank_is_named(tokens: Path, tmp_path: Path) -> None:
    stop = {"step": 3, "rank": 1, "signal": signal.SIGSTOP}
    ended = run_ranks(tmp_path, tokens, 2, stop, stall_timeout_s=12)
    assert [done.returncode for done in ended] == [1, -signal.SIGKILL]
    assert re.search(
        r"training stalled: computing of step 4 .* training\.stall_timeout_s=12: rank 1 \(.*process \d+\) has shown no "
        r"sign of life for \d+ s, while .+ of step [0-3]; .* launch again",
        ended[0].stderr,
    )
    task = Task(Step("pretrain", "run", {}), 0, tmp_path)
    status = json.loads((task.state / "tasks" / "00000.json").read_text())
    assert status["state"] == "failed"
    assert "rank 1" in status["error"]


def test_the_state_is_saved_by_the_clock(tokens: Path, tmp_path: Path) -> None:
    task = TellingTask(Step("pretrain", "run", {}), 0, tmp_path)
    seen: list[int] = []
    tell = task.progress

    def look(done: float, *more: Any, **figures: Any) -> None:
        if (task.state / "resume" / "resume.json").exists():
            seen.append(resume_state(tmp_path)["step"])
        tell(done, *more, **figures)

    task.progress = look  # type: ignore[method-assign]
    task.tell_at = 4
    with pytest.raises(Interrupted):
        in_process(tmp_path, tokens, task, checkpoints=1, save_minutes=1e-9)
    assert seen == [1, 2, 3, 4]  # as it stood after the steps 2 to 5, before they were saved


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_activation_checkpointing_computes_layers_twice_and_changes_nothing(
    zero_stage: int, tokens: Path, tmp_path: Path
) -> None:
    settings = {"tokens": 3 * 1024, "checkpoints": 1, "zero_stage": zero_stage}
    found = {}
    for twice in (False, True):
        task = Task(Step("pretrain", "run", {}), 0, tmp_path / str(twice))
        training = Training(**TRAINING | settings, activation_checkpointing=twice)
        model = build_model(SHAPE, seed=1, eos_token_id=0)
        calls: list[int] = []
        model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        train(model, Packed([tokens], "<u2", 64, seed=1), training, task, tokenizer=None)
        found[twice] = [line["loss"] for line in losses(task.out)], len(calls)
    assert found[True][0] == found[False][0]
    assert (found[False][1], found[True][1]) == (12, 24)  # 3 steps of 4 micro-batches


def test_shares_of_the_peak_and_memory(tokens: Path, tmp_path: Path) -> None:
    task = Task(Step("pretrain", "run", {}, runtime={"peak_tflops": 0.5}), 0, tmp_path)
    in_process(tmp_path, tokens, task, tokens=3 * 1024, checkpoints=1)
    about = json.loads((task.out / "checkpoints" / "step-000003" / "checkpoint.json").read_text())
    for line in losses(task.out):
        for key, flops in (("mfu", "exact_flops"), ("mfu_kaplan", "flops")):
            share = line["tokens_per_second"] * about[flops] / about["tokens"] / 0.5e12
            assert line[key] == pytest.approx(share, abs=1e-4)
        assert 0.1 < line["memory_gb"] < 64
    status = json.loads((task.state / "tasks" / "00000.json").read_text())
    assert status["figures"].keys() == {"loss", "tokens_per_second", "mfu"}


def test_deepspeeds_own_settings_and_the_log(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import deepspeed

    seen: list[dict[str, Any]] = []
    initialize = deepspeed.initialize
    monkeypatch.setattr(deepspeed, "initialize", lambda **given: seen.append(given["config"]) or initialize(**given))
    monkeypatch.setattr(loop, "LOG_S", 0)
    more = {"zero_optimization": {"reduce_bucket_size": 1000}, "steps_per_print": 10**8}
    in_process(tmp_path, tokens, tokens=2 * 1024, checkpoints=1, warmup_steps=0, deepspeed=more)
    assert (seen[0]["zero_optimization"]["reduce_bucket_size"], seen[0]["steps_per_print"]) == (1000, 10**8)
    assert seen[0]["zero_optimization"]["stage"] == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["step 1 of 2", "step 2 of 2"]
    assert re.search(r"loss \d\.\d+, lr 0\.003, grad_norm \d.*, tokens_per_second .*, memory_gb ", lines[0])


def test_a_tracker_that_fails_is_told_of_and_the_run_goes_on(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Run:
        logged: ClassVar[list[int]] = []

        def log(self, figures: dict[str, float], step: int) -> None:
            if step == 2:
                raise ConnectionError("no route")
            self.logged.append(step)

        def finish(self) -> None:
            raise AssertionError("after it has failed it is left alone")

    def no_key(**given: Any) -> Run:
        raise RuntimeError("no API key")

    settings = {"tokens": 3 * 1024, "checkpoints": 1, "tracker": "wandb"}
    monkeypatch.setitem(tracker.PACKAGES, "wandb", "json")  # one that is installed
    for init, reason in ((lambda **given: Run(), "ConnectionError: no route"), (no_key, "RuntimeError: no API key")):
        monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
        out = in_process(tmp_path / reason[:4], tokens, **settings)
        assert [line["step"] for line in losses(out)] == [1, 2, 3]
        told = capsys.readouterr().err
        assert told.count("warning: training.tracker=wandb failed") == 1
        assert reason in told
    assert Run.logged == [1]


def test_a_tracker_needs_its_package(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracker.PACKAGES, "wandb", "nobody_has_this")
    with pytest.raises(UserError, match=r"tracker=wandb: the package nobody_has_this is not installed; pip"):
        in_process(tmp_path, tokens, tracker="wandb")


def test_tensorboard_shows_the_loss_by_default(tokens: Path, tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    in_process(tmp_path, tokens, tokens=3 * 1024, checkpoints=1)
    task = Task(Step("pretrain", "run", {}), 0, tmp_path)
    (file,) = (task.state / "tensorboard").glob("events.out.tfevents.*")
    data, shown = file.read_bytes(), []
    while data:  # length, its checksum, an event, its checksum
        (size,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
        shown += [(event.step, value.simple_value) for value in event.summary.value if value.tag == "loss"]
    assert shown == [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in losses(task.out)]


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
    assert replace(again, memory_gb=first.memory_gb) == first
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
