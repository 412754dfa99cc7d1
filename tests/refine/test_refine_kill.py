"""Kill anywhere: after SIGKILL at every write, at random moments, on a full disk, after damage: the same corpus.

Tasks are real processes (`killable.py`) with a server that answers at once and by the prompt alone
(`tools/echo_server.py`), so that the programs of a block asked twice are the same and all can be compared byte for
byte with what an undisturbed task makes. With SGLang itself, the refined documents are those of the published programs.
"""

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import echo_server
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prox_hpc import verify
from prox_hpc.cluster import worker
from prox_hpc.config import Corpus
from prox_hpc.corpus.files import plan_files
from prox_hpc.corpus.read import open_source
from prox_hpc.publish import replace_json
from prox_hpc.refine.records import Execution, execute, read_rows
from prox_hpc.study.store import artifact_dir, state_dir, write_step
from prox_hpc.task import Step, Task

LINES = ["Home | About | Contact", "The quick brown fox jumps over the lazy dog.", "Share this page", "Cookies"]
MEASURED = ("seconds", "documents_per_second", "speed")
"""Keys of a manifest that tell how fast a block was made."""
BLOCKS = 7
UNREADABLE = 6


def text(number: int) -> str:
    return "\n".join(f"{LINES[(number + i) % 4]} {number * i}" for i in range(1 + number % 9))


def write_corpus(folder: Path) -> dict[str, Any]:
    """Three files of JSONL, one with broken records, a Parquet file of three blocks, and a file that is cut off."""
    folder.mkdir()
    for block in range(3):
        lines = [json.dumps({"id": f"{block}-{i}", "text": text(40 * block + i), "url": "u"}) for i in range(40)]
        if block == 1:
            lines[20:20] = ["{not JSON", '{"id": "null", "text": null}']
            lines += [json.dumps({"id": name, "text": odd}) for name, odd in (("empty", ""), ("blank", " \n\t"))]
        (folder / f"{block}.jsonl").write_text("\n".join(lines) + "\n")
    table = pa.table({"id": [f"p{i}" for i in range(100)], "text": [text(i) for i in range(100)]})
    pq.write_table(table, folder / "3.parquet", row_group_size=35)
    records = random.Random(0).sample(range(10**9), 5000)
    whole = gzip.compress("".join(json.dumps({"text": text(one)}) + "\n" for one in records).encode())
    (folder / "4.jsonl.gz").write_bytes(whole[: len(whole) // 40])
    columns = {"block_documents": 40, "allow_failed_blocks": 1}
    return plan_files(Corpus(name="pages", kind="files", path=str(folder), **columns))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of a refiner but its weights."""
    from prox_hpc.refiner.tokenizer import save, train

    folder = tmp_path_factory.mktemp("refiner") / "model"
    folder.mkdir()
    save(train([line for line in LINES for _ in range(9)], 1024), folder)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 2, "vocab_size": 1024, "max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": 0, **shape}))
    return folder


class Tasks:
    """Starts tasks that can be killed; all end with the tests."""

    def __init__(self, model: Path, log: Path):
        script = Path(__file__).with_name("killable.py")
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, str(script), str(model)], **pipes)
        self.log = log

    def start(
        self,
        step: Path,
        index: int = 0,
        at: tuple[str, bool] | None = None,
        by: int = signal.SIGKILL,
        record: Path | None = None,
    ) -> int:
        """-> pid. at: the point where it gets the signal `by`. record: file for the points passed."""
        asked = {"step": str(step), "index": index, "log": str(self.log), "at": at and (*at, by)}
        return self._ask(asked | {"record": str(record) if record else None})

    def wait(self, pid: int) -> int:
        """-> exit status, negative for a signal."""
        return self._ask({"wait": pid})

    def run(self, step: Path, **more: Any) -> int:
        return self.wait(self.start(step, **more))

    def said(self) -> str:
        """What the tasks wrote since it was asked last."""
        said = self.log.read_text()
        self.log.write_text("")
        return said

    def _ask(self, asked: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def tasks(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tasks]:
    started = Tasks(model, tmp_path_factory.mktemp("log") / "tasks.log")
    yield started
    assert started.process.stdin is not None
    started.process.stdin.close()
    started.process.wait()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "pages")


NewStep = Callable[..., "Made"]


class Made:
    """A step in a store of its own, with the run folder that `verify` wants."""

    def __init__(self, folder: Path, step: Step):
        self.folder, self.step = folder, step
        self.file = write_step(folder / "store", step)
        self.task = Task(step, 0, self.file.parents[3])
        self.out, self.state = artifact_dir(self.task.store, step), state_dir(self.task.store, step)
        self.run = folder / "run"
        study = {"config": {"store": str(self.task.store)}, "steps": {step.address: step.to_json()}}
        replace_json(self.run / "study.json", study)

    def products(self) -> dict[str, Any]:
        """What is published so far, by name: documents as bytes, programs as rows, manifests without what is timed."""
        found: dict[str, Any] = {}
        for path in sorted((self.out / "blocks").glob("[0-9]*")):
            if path.name.endswith(".refined.parquet"):
                found[path.name] = path.read_bytes()
            elif path.suffix == ".parquet":
                found[path.name] = pq.read_table(path).to_pylist()
            else:
                found[path.name] = untimed(json.loads(path.read_text()))
                counts = found[path.name]
                if "in" in counts:
                    assert counts["in"] == counts["kept"] + counts["dropped"] + counts["failed"]
        sealed = self.out / "artifact.json"
        if sealed.exists():
            found[sealed.name] = untimed(json.loads(sealed.read_text())["summary"])
        return found

    def drafts(self) -> list[str]:
        """Drafts in the artifact; that of artifact.json itself stays if its task dies before it is removed."""
        return [path.name for path in self.out.rglob(".*") if not path.name.startswith(".artifact.json.")]

    def check(self, reference: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
        """Finished, and the same as undisturbed."""
        products = self.products()
        assert products.keys() == reference.keys()
        for name, value in products.items():
            assert value == reference[name], name
        assert self.drafts() == []
        assert verify.main([str(self.run)]) == 0, capsys.readouterr().out


def untimed(counts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in counts.items() if name not in MEASURED}


@pytest.fixture
def new(new_in: NewStep, tmp_path: Path) -> NewStep:
    """new(...) -> a step, in the test's folder unless told otherwise."""
    return lambda folder=tmp_path, **more: new_in(folder, **more)


@pytest.fixture(scope="module")
def new_in(model: Path, source: dict[str, Any]) -> NewStep:
    """new_in(folder, runtime settings, delay=seconds before an answer, sglang=model to be really served) -> a step.

    The server otherwise is the echo server.
    """

    def make(folder: Path, delay: float = 0.0, sglang: Path | None = None, **runtime: Any) -> Made:
        refiner = {"prompt": "tags", "max_chunk_tokens": 60, "max_doc_tokens": 60, "max_new_tokens": 24}
        refiner |= {"doc_model": str(sglang or model), "chunk_model": str(sglang or model), "chunk_margin": 1.0}
        serve: dict[str, Any] = {"device": "cpu", "max_total_tokens": 8192, "requests_in_flight": 16}
        if sglang:
            serve["dtype"] = "float32"
        else:
            serve["command"] = [sys.executable, str(echo_server.__file__), "--delay", str(delay)]
        config = {"refiner": refiner, "doc_stage": True, "chunk_stage": True, "program_all": False, "source": source}
        runtime = {"serve": serve, "assignment": "leased", "lease_s": 300, **runtime}
        return Made(folder, Step("refine", "pages", config, runtime=runtime))

    return make


@pytest.fixture(scope="module")
def undisturbed(tasks: Tasks, new_in: NewStep, tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, list[Any]]:
    """The step made by one task in peace, and the points it passed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    step = new_in(folder)
    assert tasks.run(step.file, record=folder / "points") == 0, tasks.said()
    points = [tuple(json.loads(line)) for line in (folder / "points").read_text().splitlines()]
    return step, list(dict.fromkeys(points))


@pytest.fixture(scope="module")
def reference(undisturbed: tuple[Made, list[Any]]) -> dict[str, Any]:
    return undisturbed[0].products()


def test_the_undisturbed_corpus_holds_what_is_to_be_compared(
    undisturbed: tuple[Made, list[Any]], reference: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    step, points = undisturbed
    step.check(reference, capsys)
    assert len(reference) == 3 * (BLOCKS - 1) + 2
    assert "cannot be read to its end" in reference[f"{UNREADABLE:05d}.failed.json"]["reason"]
    counts = reference["artifact.json"]
    assert (counts["failed_blocks"], counts["failures"]) == (1, {"invalid JSON": 1, "text is null or missing": 1})
    assert counts["documents"]["in"] == 3 * 40 + 4 + 100
    assert min(counts["documents"][name] for name in ("untouched", "edited", "dropped")) > 10
    assert ("link blocks/N.programs.parquet", False) in points
    assert len(points) > 50


def kill_at(
    tasks: Tasks, new: NewStep, tmp_path: Path, reference: dict[str, Any], points: list[Any], **runtime: Any
) -> Iterator[Made]:
    """Kill a task at one point, the next one at another one, and so on until the step is done; then a new step.

    After every kill, what is published is already what it shall be. Yields the finished steps.
    """
    pending, missed = deque(points), Counter[Any]()
    while pending:
        step = new(tmp_path / f"{len(pending)}-{missed.total()}", **runtime)
        while pending:
            point = pending.popleft()
            status = tasks.run(step.file, at=point)
            if status != -signal.SIGKILL:
                assert status == 0, tasks.said()
                missed[point] += 1
                assert missed[point] < 3, f"{point} is not reached"
                pending.append(point)  # all blocks were past it; in a new step it comes
                break
            for name, value in step.products().items():
                assert value == reference[name], f"{name} after a kill at {point}"
        assert tasks.run(step.file) == 0, tasks.said()
        yield step
        shutil.rmtree(step.folder)


@pytest.mark.parametrize("seed", [1])
def test_killed_at_every_write(
    tasks: Tasks,
    new: NewStep,
    tmp_path: Path,
    undisturbed: tuple[Made, list[Any]],
    reference: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    # What is on the disk is the same after a sync as before it.
    points = [point for point in undisturbed[1] if not (point[0].startswith(("fsync", "close")) and point[1])]
    random.Random(seed).shuffle(points)
    for step in kill_at(tasks, new, tmp_path, reference, points):
        step.check(reference, capsys)


def test_killed_at_every_write_between_the_phases(
    tasks: Tasks,
    new: NewStep,
    tmp_path: Path,
    undisturbed: tuple[Made, list[Any]],
    reference: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = new(layout="phased")
    assert tasks.run(step.file, record=tmp_path / "points") == 0, tasks.said()
    step.check(reference, capsys)
    passed = [tuple(json.loads(line)) for line in (tmp_path / "points").read_text().splitlines()]
    points = [point for point in dict.fromkeys(passed) if point not in undisturbed[1] and point[0] != "unlink scores"]
    assert len(points) >= 12, points
    random.Random(2).shuffle(points)
    for step in kill_at(tasks, new, tmp_path, reference, points, layout="phased"):
        step.check(reference, capsys)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_published_programs_stay_when_the_model_answers_otherwise(
    tasks: Tasks, new: NewStep, capsys: pytest.CaptureFixture[str], after: bool
) -> None:
    """Greedy decoding need not repeat itself: documents and manifest are made from the programs that are there."""
    step = new()
    points = [f"link blocks/N.{product}" for product in ("programs.parquet", "refined.parquet", "json")]
    points.insert(1, "write_table blocks/N.refined.parquet (draft)")
    serve = step.step.runtime["serve"]
    for number, point in enumerate(points):
        command = [*serve["command"], "--kept", str(0.3 + 0.1 * number)]
        runtime = step.step.runtime | {"serve": serve | {"command": command}}
        write_step(step.task.store, replace(step.step, runtime=runtime))
        # a note of an unreadable block is no product: whoever starts takes it back, to try once more
        before = {name: value for name, value in step.products().items() if not name.endswith(".failed.json")}
        assert tasks.run(step.file, at=(point, after)) == -signal.SIGKILL, tasks.said()
        assert before.items() <= step.products().items()
    before = step.products()
    assert tasks.run(step.file) == 0, tasks.said()
    assert before.items() <= step.products().items()
    assert step.drafts() == []
    assert verify.main([str(step.run)]) == 0, capsys.readouterr().out


def kill_servers(task: int) -> None:
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(task).children():
            if "--model-path" in child.cmdline():
                child.kill()


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_killed_at_random_moments(
    tasks: Tasks, new: NewStep, reference: dict[str, Any], capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    """Task, server or both, again and again."""
    lots = random.Random(seed)
    step = new(delay=0.03)
    started, statuses = time.monotonic(), []
    for _ in range(3):  # three lives of the task
        pid = tasks.start(step.file)
        for _ in range(2):
            time.sleep(lots.uniform(0, 1.5))
            victim = lots.choice(["task", "server", "both"])
            if victim != "task":
                kill_servers(pid)
            if victim != "server":
                os.kill(pid, signal.SIGKILL)
                break
        statuses.append(tasks.wait(pid))
        for name, value in step.products().items():
            assert value == reference[name], f"{name} after {statuses} in {time.monotonic() - started:.2f} s"
        if statuses[-1] == 1:  # while it started, or again and again
            assert "ended by signal SIGKILL" in tasks.said()
    assert set(statuses) <= {0, 1, -signal.SIGKILL}
    assert tasks.run(step.file) == 0, tasks.said()
    step.check(reference, capsys)


@pytest.mark.parametrize(("assignment", "indices"), [("leased", [0, 0, 3]), ("static", [0, 0])])
def test_started_twice(
    tasks: Tasks,
    new: NewStep,
    reference: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    assignment: str,
    indices: list[int],
) -> None:
    """The same task twice at once, and one that helps; one of them is killed and started again."""
    lots = random.Random(6)
    step = new(delay=0.02, assignment=assignment)
    pids = [tasks.start(step.file, index=index) for index in indices]
    time.sleep(lots.uniform(0.5, 2))
    os.kill(pids[1], signal.SIGKILL)
    assert tasks.wait(pids[1]) in (0, -signal.SIGKILL)
    pids[1] = tasks.start(step.file)
    assert [tasks.wait(pid) for pid in pids] == [0] * len(pids), tasks.said()
    step.check(reference, capsys)


@pytest.mark.parametrize("product", ["programs.parquet", "refined.parquet", "json"])
def test_halted_for_longer_than_its_lease(
    tasks: Tasks, new: NewStep, reference: dict[str, Any], capsys: pytest.CaptureFixture[str], product: str
) -> None:
    """Another one takes the block and seals the step, with which drafts are cleared away; the first one wakes up."""
    step = new(lease_s=1)
    first = tasks.start(step.file, at=(f"fsync blocks/N.{product} (draft)", False), by=signal.SIGSTOP)
    while psutil.Process(first).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    assert tasks.run(step.file) == 0, tasks.said()
    os.kill(first, signal.SIGCONT)
    assert tasks.wait(first) == 0, tasks.said()
    step.check(reference, capsys)


def test_a_full_disk(
    tasks: Tasks,
    new: NewStep,
    small_disk: Callable[[str], Path],
    reference: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Full at the start, in the programs, later on: the task says so, and goes on when there is room."""
    disk = small_disk("2m")
    step = new(disk / "study")
    ballast = disk / "ballast"
    for pages in (0, 2, 8, 16, 24):
        tasks.said()
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        ballast.write_bytes(b"x" * (free - 4096 * pages))
        assert tasks.run(step.file) == 1
        assert "No space left on device" in tasks.said()
        ballast.unlink()
        for name, value in step.products().items():
            assert value == reference[name], f"{name} with {pages} pages"
    assert tasks.run(step.file) == 0, tasks.said()
    step.check(reference, capsys)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path: Path) -> None:
    counts = json.loads(path.read_text())
    path.write_text(json.dumps(counts | {"kept": counts["kept"] + 1, "dropped": counts["dropped"] - 1}))


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    ("refined.parquet", cut),
    ("refined.parquet", Path.unlink),
    ("programs.parquet", cut),
    ("json", cut),
    ("json", edit),
    ("json", lambda path: path.write_text("{}")),
]


def follow(told: str) -> None:
    """Do what a message says is to be done."""
    remedies = re.findall(r"; remove (.+?) and launch again", told)
    assert remedies, told
    for name in dict.fromkeys(name for remedy in remedies for name in remedy.split(" ")):
        Path(name).unlink()


@pytest.mark.parametrize("sealed", [False, True], ids=["before the seal", "after the seal"])
@pytest.mark.parametrize(("suffix", "damage"), DAMAGE, ids=[f"{suffix}-{n}" for n, (suffix, _) in enumerate(DAMAGE)])
def test_a_damaged_file_is_named_and_made_again(
    tasks: Tasks,
    undisturbed: tuple[Made, list[Any]],
    tmp_path: Path,
    reference: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    damage: Callable[[Path], object],
    sealed: bool,
) -> None:
    shutil.copytree(undisturbed[0].folder, tmp_path / "copy")
    step = Made(tmp_path / "copy", undisturbed[0].step)
    path = step.out / "blocks" / f"00003.{suffix}"
    damage(path)
    if sealed:
        assert verify.main([str(step.run)]) == 1
        told = capsys.readouterr().out
    else:
        (step.out / "artifact.json").unlink()
        with pytest.raises(RuntimeError) as error:
            worker.main([str(step.file), "seal"])
        told = str(error.value)
    assert "00003." in told
    follow(told)
    assert tasks.run(step.file) == 0, tasks.said()
    step.check(reference, capsys)


def test_programs_damaged_before_their_block_was_finished(
    tasks: Tasks,
    undisturbed: tuple[Made, list[Any]],
    tmp_path: Path,
    reference: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(undisturbed[0].folder, tmp_path / "copy")
    step = Made(tmp_path / "copy", undisturbed[0].step)
    blocks = step.out / "blocks"
    for path in (step.out / "artifact.json", blocks / "00002.json", blocks / "00002.refined.parquet"):
        path.unlink()
    cut(blocks / "00002.programs.parquet")
    tasks.said()
    assert tasks.run(step.file) == 1
    follow(tasks.said().splitlines()[-1])
    assert tasks.run(step.file) == 0, tasks.said()
    step.check(reference, capsys)


def test_files_of_a_block_that_could_not_be_read_are_found(
    undisturbed: tuple[Made, list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(undisturbed[0].folder, tmp_path / "copy")
    step = Made(tmp_path / "copy", undisturbed[0].step)
    assert verify.main([str(step.run)]) == 0
    assert "4.jsonl.gz: cannot be read to its end" in capsys.readouterr().out
    path = step.out / "blocks" / f"{UNREADABLE:05d}.refined.parquet"
    path.write_bytes(b"")
    assert verify.main([str(step.run)]) == 1
    assert f"{path}: belongs to a block that could not be read; remove it" in capsys.readouterr().out
    assert path.exists()


def test_with_sglang_the_documents_are_those_of_the_published_programs(
    new: NewStep, tiny_refiner: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The task is killed with its server after its first block; greedy decoding need not repeat itself bit for bit."""
    step = new(sglang=tiny_refiner)
    command = [sys.executable, "-m", "prox_hpc.worker", str(step.file), "0"]
    log = step.folder / "log"
    with log.open("w") as file:
        first = subprocess.Popen(command, stdout=file, stderr=file)
        while first.poll() is None and not list(step.out.glob("blocks/*.programs.parquet")):
            time.sleep(0.005)
        kill_servers(first.pid)
        first.kill()
    assert first.wait() == -signal.SIGKILL, log.read_text()
    before = step.products()
    assert "artifact.json" not in before
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    products = step.products()
    assert before.items() <= products.items()
    assert verify.main([str(step.run)]) == 0, capsys.readouterr().out
    assert step.drafts() == []
    source, execution = open_source(step.task), Execution.of(step.step.config)
    for block in source.blocks[:UNREADABLE]:
        rows = read_rows(step.out / "blocks" / f"{block.index:05d}.programs.parquet")
        pairs = zip(source.read(block), rows, strict=True)
        results = [execute(one.id, one.text, row.written, execution) for one, row in pairs]
        refined = pq.read_table(step.out / "blocks" / f"{block.index:05d}.refined.parquet")["text"].to_pylist()
        assert refined == [result.after for result in results if result.outcome != "dropped"]
