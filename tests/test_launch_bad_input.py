"""A user's mistake is told in one line with the remedy, exit status 2, before anything is queued."""

import gzip
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from prox_hpc.launch import plan
from prox_hpc.study.store import open_run
from tests.conftest import Command
from tests.test_conf import composed

PAGE = {"id": "a", "text": "One line.\nAnother line."}
REAL = ("experiment=real_pages", "corpus.keep_column=null", "corpus.text_column=text", "arm=[raw,prox_c]")


def refused(launch: Command, tmp_path: Path, *overrides: str, **environment: str) -> str:
    """Launch, expect status 2 and one error line, and nothing in the output folder; -> that line."""
    output = tmp_path / "out"
    done = launch(f"output={output}", *overrides, **environment)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert len([line for line in lines if not line.startswith("see ")]) == 1, done.stderr
    assert not list(output.glob("store/steps/*/*")), "something was queued"
    return lines[0]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("refiner=enormous", "enormous"),
        ("corpus.documnts=3", "documnts"),
        ("corpus.documents=many", "many"),
        ("cluster.backend=cloud", "cloud"),
        ("arm=[raw,prox_z]", "prox_z"),
        ("corpus=files", "corpus.path"),
        ("seeds=[3,3]", "seeds"),
        ("trainee.training.batch_tokens=4097", "trainee.training.batch_tokens"),
        ("refiner.training.warmup_steps=9999", "refiner.training.warmup_steps"),
        ("seeds.a=3", "seeds.a=3"),
        ("refiner.checks.min_words=few", "'few' of type 'str' could not be converted to Integer"),
        ("refiner.caps.operations=0", "refiner.caps.operations=0: must be positive"),
        ("arm.prox_dc.checks.max_removed=0", "max_removed must be above 0"),
        ("arm.prox_dc.profile=v2", "arm.prox_dc.profile=v2: unknown; one of v1, deletion_only, prox_v1"),
        ("arm.prox_dc.doc_threshold=-2", "set refiner.chunk_margin=2 or more"),
        ("refiner.doc_retention=30", "refiner.doc_retention=30.0: must be between 0 and 1, e.g. 0.3"),
        ("refiner.doc_retention=most", "refiner.doc_retention"),
        ("refiner.serve.replicas=0", "refiner.serve.replicas=0: must be 1 or more"),
        ("refiner.layout=together", "refiner.layout=together: unknown; one of fused, shared, phased"),
        ("refiner.prompt=shout", "refiner.prompt=shout: no such prompt template; choose one of tags, page, llama2"),
        ("output=", "output=: is empty"),
        ("+corpus.documnts=3", "corpus.documnts: no such key"),
        ("+documents=3", "documents: no such key"),
        ("trainee.tokenizer=~/folder", "stands in quotes"),
        ("evaluation.items=9999", "evaluation.items=9999: 9999 cloze items wanted, the world has 240; ask for fewer"),
        ("cluster.python=/nonexistent", "cluster.python=/nonexistent: is no program here"),
        ("refiner.max_new_tokens=900", "refiner.max_chunk_tokens=240: with an answer of 900 more than the 1024 tokens"),
        ("refiner.max_doc_tokens=1024", "refiner.max_doc_tokens=1024: with an answer of 1 more than the 1024 tokens"),
        ("cluster.resources.pretrain.cpus=2", "lacks can be added in that file only"),
        ("cluster.assignment=any", "cluster.assignment=any: unknown; one of leased, static"),
    ],
)
def test_wrong_configuration(launch: Command, tmp_path: Path, override: str, told: str) -> None:
    assert told in refused(launch, tmp_path, override)


def write_corpus(folder: Path, name: str) -> Path:
    path = folder / name
    line = json.dumps(PAGE).encode() + b"\n"
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(line * 500)[:-20])
    elif name.endswith(".zst"):
        path.write_bytes(zstandard.compress(line * 500)[:-5])
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist([PAGE]), path)
        path.write_bytes(path.read_bytes()[:-30])
    else:
        path.write_bytes(line)
    return path


@pytest.mark.parametrize("name", ["cut.jsonl.gz", "cut.jsonl.zst", "cut.parquet"])
def test_a_corrupt_file_is_named(launch: Command, tmp_path: Path, name: str) -> None:
    good, bad = write_corpus(tmp_path, "good.jsonl"), write_corpus(tmp_path, name)
    told = refused(
        launch, tmp_path, *REAL, f"corpus.path={bad}", f"evaluation.path={good}", "evaluation.text_column=text"
    )
    assert str(bad) in told
    assert "corrupt" in told


def test_missing_path_empty_corpus_and_wrong_column(launch: Command, tmp_path: Path) -> None:
    good = write_corpus(tmp_path, "good.jsonl")
    (tmp_path / "empty.jsonl").touch()
    rest = (f"evaluation.path={good}", "evaluation.text_column=text", "evaluation.keep_column=null")
    assert "nowhere" in refused(launch, tmp_path, *REAL, f"corpus.path={tmp_path}/nowhere", *rest)
    assert "no documents" in refused(launch, tmp_path, *REAL, f"corpus.path={tmp_path}/empty.jsonl", *rest)
    told = refused(launch, tmp_path, *REAL, f"corpus.path={good}", "corpus.text_column=body", *rest)
    assert "body" in told
    assert "id, text" in told


def test_a_model_folder_without_tokenizer(launch: Command, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    given = (f"refiner.doc_model={model}", f"refiner.chunk_model={model}", "trainee.tokenizer=t")
    told = refused(launch, tmp_path, "refiner=xs", *given)
    assert str(model) in told
    assert "tokenizer" in told


def test_a_port_in_use(launch: Command, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"refiner.serve.port={port}" in refused(launch, tmp_path, f"refiner.serve.port={port}")


def test_no_sbatch(launch: Command, tmp_path: Path) -> None:
    told = refused(launch, tmp_path, "cluster=slurm_dev", PATH="/nonexistent")
    assert "sbatch" in told
    assert "cluster=local" in told


def test_a_full_disk(launch: Command, tmp_path: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("256k")
    assert "64 MiB" in refused(launch, tmp_path, f"store={disk}/store")
    (disk / "ballast").write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
    assert "full" in refused(launch, tmp_path, f"store={disk}/store2")


def test_a_folder_that_cannot_be_written(launch: Command, tmp_path: Path) -> None:
    assert "/dev/full" in refused(launch, tmp_path, "store=/dev/full/store")


def test_a_run_folder_of_another_study_and_of_strangers(launch: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    other = composed("corpus.seed=1", f"run_dir={run}", f"output={tmp_path}/out")
    open_run(run, plan(other), asdict(other))
    told = refused(launch, tmp_path, f"run_dir={run}")
    assert "corpus.seed: 1 there, 2611 here" in told
    (run / "study.json").rename(run / "thesis.tex")
    assert "holds files but no study" in refused(launch, tmp_path, f"run_dir={run}")


def test_a_dry_run_finds_the_same_mistakes_and_writes_nothing(launch: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = refused(launch, tmp_path, f"store={tmp_path}/file/store", "dry_run=true")
    assert f"{tmp_path}/file is a file; choose another folder with output=DIR" in told
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    assert "holds files but no study" in refused(launch, tmp_path, f"run_dir={tmp_path}/run", "dry_run=true")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "run"}


def test_dry_run_submits_nothing_and_prints_every_script(launch: Command, tmp_path: Path) -> None:
    done = launch("cluster=slurm", "cluster.account=acc", "dry_run=true", "corpus.tasks=4", f"output={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out").exists()
    steps = int(done.stdout.split(" steps")[0].split()[-1])
    assert done.stdout.count("#!/bin/bash") == steps + done.stdout.count("(seal)")
    assert "#SBATCH --account=acc" in done.stdout
    assert "#SBATCH --array=0-3%4" in done.stdout
    assert "kill-on-invalid-dep" in done.stdout
