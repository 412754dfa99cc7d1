"""`python -m prox_hpc.verify`: a finished corpus is found whole, and each sort of damage is named with its file."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prox_hpc import verify
from prox_hpc.cluster.worker import manifest, run_task
from prox_hpc.corpus.read import Document
from prox_hpc.programs import ChunkProgram
from prox_hpc.publish import publish_json, replace_json
from prox_hpc.refine import pilot
from prox_hpc.refine.records import Written
from prox_hpc.study.store import load_run, write_step
from prox_hpc.task import Step, Task

MakeRun = Callable[..., Path]
BODY = "The museum opened its doors in the old town and has been visited by many people since."


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    """Two blocks; a refine step and an arm made from its programs."""

    def page(number: int) -> tuple[Document, Written]:
        chunks = [ChunkProgram(0, 2, "remove_lines(0, 0)" if number % 2 else "keep_chunk()")]
        return Document(f"d{number}", f"Menu {number}\n{BODY}", {}), Written(1.0 - number, chunks=chunks)

    pages = [page(number) for number in range(8)]
    folder = make_run(pages[:4], pages[4:], refiner={"doc_threshold": -5.0})
    config, (corpus, refine) = load_run(folder)
    inputs = {"corpus": corpus.address, "programs": refine.address}
    arm = Step("execute", "prox_dc", {"arm": {"kind": "refined", "doc_threshold": -5.0}}, inputs)
    run_task(str(write_step(Path(config["store"]), arm)), 0)
    study = json.loads((folder / "study.json").read_text())
    study["steps"][arm.address] = arm.to_json()
    (folder / "study.json").write_text(json.dumps(study))
    return folder


def artifact(run: Path, kind: str) -> Path:
    (found,) = (run.parents[1] / "store" / "artifacts" / kind).iterdir()
    return found


def verified(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = verify.main([str(run)])
    return status, capsys.readouterr().out


def test_a_whole_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = verified(run, capsys)
    assert (status, told.count("all is well")) == (0, 2), told
    assert verify.main([str(run), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["artifacts"].values()) == [[], []]


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rewrite(path: Path, column: str, row: int, value: object) -> None:
    """Change one value of a Parquet file."""
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    index = table.schema.get_field_index(column)
    replace(path, table.set_column(index, table.schema.field(index), pa.array(values, table.schema.types[index])))


def replace(path: Path, table: pa.Table) -> None:
    """Write another table to a Parquet file, with the file's own notes."""
    notes = pq.read_metadata(path).metadata
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({name: value for name, value in notes.items() if name != b"ARROW:schema"})


DAMAGES: list[tuple[str, str, Callable[[Path], object], str]] = [
    ("refine", "blocks/00000.refined.parquet", Path.unlink, "00000.refined.parquet: is missing"),
    ("refine", "blocks/00001.refined.parquet", lambda path: path.write_bytes(path.read_bytes()[:-9]), "cannot be read"),
    ("refine", "blocks/00000.json", lambda path: edit(path, kept=1), "00000.json: says kept 1, its files give 4"),
    (
        "refine",
        "blocks/00000.json",
        lambda path: path.write_text("{"),
        "00000.json: is no manifest (Expecting property name",
    ),
    (
        "refine",
        "blocks/00000.programs.parquet",
        lambda path: rewrite(path, "text_hash_in", 2, "0" * 32),
        "00000.programs.parquet: document 'd2': the programs file holds 'd2' or another text there",
    ),
    (
        "refine",
        "blocks/00000.programs.parquet",
        lambda path: rewrite(path, "text_hash_out", 2, "0" * 32),
        "its programs give other documents than it says came out (1 untouched otherwise)",
    ),
    ("refine", "blocks/00000.refined.parquet", lambda path: rewrite(path, "text", 0, "x"), "4 documents are not the 4"),
    ("refine", "artifact.json", lambda path: edit(path, summary={}), "its summary is not the sum of its blocks"),
    ("refine", "blocks/00007.parquet", lambda path: path.write_text(""), "was not there when the artifact was"),
    ("execute", "blocks/00001.parquet", lambda path: rewrite(path, "id", 0, "d0"), "00001.json: says digest_out"),
    ("execute", "blocks/00001.json", lambda path: edit(path, documents_in=9), "says documents_in 9, its files give 4"),
    (
        "generate",
        "blocks/00000.parquet",
        lambda path: rewrite(path, "text", 1, BODY),
        "document 'd1': the programs file",
    ),
]


@pytest.mark.parametrize(("kind", "name", "damage", "told"), DAMAGES, ids=[f"{d[0]} {d[1]} {d[3]}" for d in DAMAGES])
def test_damage_is_named(
    run: Path, kind: str, name: str, damage: Callable[[Path], object], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(artifact(run, kind) / name)
    status, said = verified(run, capsys)
    assert status == 1
    assert told in said


def test_what_is_no_run(tmp_path: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert verify.main([str(make_run([], published=False))]) == 0
    assert "no refined corpus is finished yet" in capsys.readouterr().out


@pytest.mark.parametrize(("quarantine", "outcome"), [("unrefined", "untouched"), ("dropped", "dropped")])
def test_documents_in_quarantine_are_counted(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], quarantine: str, outcome: str
) -> None:
    pages = [(Document(f"d{n}", f"{BODY} {n}", {}), Written(1.0, chunks=[ChunkProgram(0, 1, "")])) for n in range(3)]
    pages[1] = (pages[1][0], Written(quarantined="killed the server twice"))
    folder = make_run(pages, refiner={"quarantine": quarantine})
    status, told = verified(folder, capsys)
    assert status == 0, told
    path = artifact(folder, "refine") / "blocks" / "00000.json"
    counts = json.loads(path.read_text())
    assert counts["reasons"] == {"quarantined": 1}
    assert counts[outcome] >= 1
    edit(path, reasons={})
    status, told = verified(folder, capsys)
    assert status == 1
    assert "says reasons {}, its files give {'quarantined': 1}; remove" in told


def test_programs_that_were_changed_are_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The hashes of the documents fit; it is what comes out that does not."""
    path = artifact(run, "refine") / "blocks" / "00000.programs.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["chunks"][0]["program"] = "remove_lines(0, 0)"
    replace(path, pa.Table.from_pylist(rows, table.schema))
    status, told = verified(run, capsys)
    assert status == 1
    assert "its programs give other documents than it says came out (1 untouched -> edited)" in told


@pytest.fixture
def pilot_run(tmp_path: Path) -> tuple[Path, Path]:
    """Run folder and artifact of a pilot step of ten scores."""
    step = Step("pilot", "web-tiny", {"refiner": {"doc_retention": 0.3}, "seed": 0})
    task = Task(step, 0, tmp_path / "store")
    rows = [{"id": f"d{n}", "block": n % 2, "score": float(n), "tokens": 9, "cut": False} for n in range(10)]
    note = {"parameters": {}, "blank": 1, "failures": {}, "unreadable_blocks": [], "quarantined": []}
    scores = task.out / pilot.SCORES
    pilot._publish_scores(scores, rows, {**note, "server_version": "none", "seconds": 1.0})
    publish_json(task.out / pilot.FILE, pilot.figures(scores, 0.3))
    publish_json(task.out / "artifact.json", manifest(step, task.out, pilot.seal(task)))
    study = {"config": {"store": str(task.store)}, "steps": {step.address: step.to_json()}}
    replace_json(tmp_path / "run" / "study.json", study)
    return tmp_path / "run", task.out


def test_a_pilot(pilot_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = pilot_run
    assert verified(folder, capsys) == (0, f"+ pilot/{out.name}  all is well\n")
    edit(out / pilot.FILE, threshold=-5.0)
    status, told = verified(folder, capsys)
    assert status == 1
    assert f"pilot.json: is not what scores.parquet gives; remove {out}/pilot.json {out}/artifact.json and" in told
    (out / pilot.SCORES).write_bytes(b"")
    status, told = verified(folder, capsys)
    assert status == 1
    assert "its figures: cannot be read" in told


def test_nothing_is_changed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even what a seal would clear away."""
    (artifact(run, "refine") / "blocks" / ".00000.json.0123456789ab.tmp").write_text("")
    (artifact(run, "refine") / "blocks" / "00001.json").unlink()
    before = {path: path.stat() for path in run.parents[1].rglob("*")}
    assert verified(run, capsys)[0] == 1
    assert {path: path.stat() for path in run.parents[1].rglob("*")} == before
