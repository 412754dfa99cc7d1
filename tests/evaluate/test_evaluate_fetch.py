"""Preparing evaluation data: from a folder in place of the hub, with real `datasets`; and what launch makes of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from prox_hpc.config import Evaluation
from prox_hpc.errors import UserError
from prox_hpc.evaluate import prepared
from prox_hpc.evaluate.fetch import fetch
from tests.conftest import Command

PIQA = {"goal": "g", "sol1": "a", "sol2": "b", "label": 0}


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())["tasks"]


def test_each_task_has_its_split_and_lm_evals_own_also_the_one_for_examples(fetched: Path) -> None:
    tasks = manifest(fetched)
    assert len(tasks) == 68
    easy = tasks["prox_arc_easy"]
    assert (easy["dataset"], easy["config"], easy["revision"]) == ("allenai/ai2_arc", "ARC-Easy", None)
    assert {split: (of["rows"], of["of"]) for split, of in easy["splits"].items()} == {"test": (3, 3)}
    assert {split: of["rows"] for split, of in tasks["arc_easy"]["splits"].items()} == {"test": 3, "train": 5}
    assert tasks["winogrande"]["task_file"] == "winogrande/default.yaml"
    for said in tasks.values():
        for of in said["splits"].values():
            assert pq.read_metadata(fetched / of["file"]).num_rows == of["rows"]
            assert (fetched / of["file"]).stat().st_size == of["bytes"]
    assert not list(fetched.glob(".fetch-*"))


def test_of_a_large_split_only_the_items_that_are_asked(tmp_path: Path, make_hub) -> None:
    rows = [PIQA | {"goal": f"goal {n}"} for n in range(1001)]
    hub = make_hub(tmp_path / "hub", {"baber/piqa": {None: {"validation": rows}}})
    ((_, said, _),) = fetch(tmp_path / "eval", ["prox_piqa"], hub)
    of = said.splits["validation"]
    assert (of.rows, of.of) == (1000, 1001)
    goals = pq.read_table(tmp_path / "eval" / of.file)["goal"].to_pylist()
    assert goals == sorted(goals, key=lambda goal: int(goal.split()[1]))


def test_fetching_again_goes_on_with_what_is_missing(tmp_path: Path, make_hub) -> None:
    hub = make_hub(tmp_path / "hub", {"baber/piqa": {None: {"validation": [PIQA]}}})
    folder = tmp_path / "eval"
    with pytest.raises(UserError, match=r"--source .*: has no folder allenai/sciq"):
        list(fetch(folder, ["prox_piqa", "prox_sciq"], hub))
    assert set(manifest(folder)) == {"prox_piqa"}, "what was complete stays"
    sciq = {"question": "q", "support": "", "correct_answer": "c"} | {f"distractor{n}": "d" for n in (1, 2, 3)}
    make_hub(hub, {"allenai/sciq": {None: {"test": [sciq]}}})
    assert [(name, there) for name, _, there in fetch(folder, ["prox_piqa", "prox_sciq"], hub)] == [
        ("prox_piqa", True),
        ("prox_sciq", False),
    ]
    (folder / "prox_piqa" / "validation.parquet").write_bytes(b"cut off")
    assert [there for _, _, there in fetch(folder, ["prox_piqa", "prox_sciq"], hub)] == [False, True]


def test_unknown_tasks_and_lm_evals_groups_are_refused(tmp_path: Path) -> None:
    for name, told in (
        ("prox_sci", "no such task"),
        ("sciqq", "neither ours .* nor lm-eval's"),
        ("mmlu", "name single tasks"),
    ):
        with pytest.raises(UserError, match=told):
            list(fetch(tmp_path, [name], tmp_path))


def test_without_network_it_ends_with_one_line(command: Command, tmp_path: Path) -> None:
    done = command(
        "prox_hpc.evaluate", "fetch", tmp_path, "--tasks", "prox_sciq",
        HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0",
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: prox_sciq: dataset allenai/sciq cannot be read: ")
    assert line.endswith("or from a local copy: --source FOLDER")


def test_list_names_groups_tasks_and_datasets(command: Command) -> None:
    shown = command("prox_hpc.evaluate", "list").stdout
    assert "prox_ten: the mean of 10: prox_arc_challenge prox_arc_easy" in shown
    assert "prox_winogrande: allenai/winogrande winogrande_xl, validation" in shown
    assert "prox_mmlu_SUBSET: cais/mmlu SUBSET, test" in shown
    assert "world_cloze: cloze.jsonl of the held-out data" in shown


def paper(**changes: object) -> Evaluation:
    base = Evaluation(name="paper", kind="none", tasks=["prox_ten", "prox_sciq"], metric="prox_ten")
    return replace(base, **changes)  # type: ignore[arg-type]


def test_identity_is_the_content_of_the_rows_wherever_the_folder_is(tmp_path: Path, make_hub, fetched: Path) -> None:
    states = prepared.identify(paper(data=str(fetched)))
    assert len(states) == 66
    assert states["prox_arc_challenge"].keys() == {"test"}
    copy = shutil.copytree(fetched, tmp_path / "copy")
    assert prepared.identify(paper(data=str(copy))) == states
    only = paper(tasks=["prox_sciq"], metric="prox_sciq", data=str(copy))
    assert prepared.identify(only) == {"prox_sciq": states["prox_sciq"]}
    sciq = {"question": "new", "support": "", "correct_answer": "c"} | {f"distractor{n}": "d" for n in (1, 2, 3)}
    shutil.rmtree(copy / "prox_sciq")
    list(fetch(copy, ["prox_sciq"], make_hub(tmp_path / "hub", {"allenai/sciq": {None: {"test": [sciq]}}})))
    assert prepared.identify(only) != {"prox_sciq": states["prox_sciq"]}
    with pytest.raises(UserError, match="was fetched again since the study was launched"):
        prepared.check_unchanged(str(copy), {"prox_sciq": states["prox_sciq"]})
    prepared.check_unchanged(str(fetched), states)


def test_what_is_missing_is_refused_with_the_command_that_fetches_it(tmp_path: Path, fetched: Path) -> None:
    def refused(**changes: object) -> str:
        with pytest.raises(UserError) as caught:
            prepared.identify(paper(**changes))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "evaluation.data: prox_arc_challenge reads a prepared folder" in refused()
    empty = refused(data=str(tmp_path))
    assert f"evaluation.data={tmp_path}: has not all of the data of prox_arc_challenge and 65 more" in empty
    assert f"fetch {tmp_path} --tasks prox_arc_challenge prox_arc_easy" in empty
    assert " prox_mmlu prox_openbookqa" in empty
    assert "logiqa" in refused(tasks=["logiqa@2"], metric="logiqa@2", data=str(fetched))
    copy = shutil.copytree(fetched, tmp_path / "copy")
    (copy / "prox_mmlu_anatomy" / "test.parquet").unlink()
    assert "--tasks prox_mmlu`" in refused(data=str(copy))
    assert "world_bpb needs held-out text" in refused(tasks=["world_bpb"], metric="world_bpb")
    assert "evaluation.metric=prox_piqa: is not among evaluation.tasks" in refused(metric="prox_piqa")
    assert "evaluation.metric=world_bpb: is not among" in refused(metric="world_bpb", data="hub")
    assert prepared.identify(paper(data="hub")) == {}
    own = {"tasks": ["arc_easy@2"], "metric": "arc_easy@2"}
    assert "evaluation.data: arc_easy reads a prepared folder" in refused(**own)
    assert prepared.identify(paper(data="hub", **own)) == {}
    for data in (None, "hub", str(tmp_path)):
        assert "nonsense: neither ours" in refused(tasks=["nonsense"], metric="nonsense", data=data)
    assert "mmlu is a group of lm-eval's" in refused(tasks=["mmlu@5"], metric="mmlu@5", data="hub")
    assert prepared.identify(paper(tasks=["mmlu"], metric="mmlu", data="hub")) == {}
    assert "is a file; give the folder" in refused(data=str(fetched / "manifest.json"))
    cloze = {"kind": "files", "tasks": ["world_bpb", "world_cloze"], "metric": "world_cloze"}
    assert "world_cloze asks about the generated world" in refused(**cloze)
    for text in ("{", "[]", '{"tasks": {"prox_sciq": {}}}'):
        (tmp_path / "manifest.json").write_text(text)
        assert "its manifest.json is damaged" in refused(data=str(tmp_path))


def test_launch_refuses_before_anything_is_queued(launch: Command, tmp_path: Path) -> None:
    for settings, told in (
        (["evaluation=paper"], "python -m prox_hpc.evaluate fetch FOLDER"),
        (["evaluation=paper", f"evaluation.data={tmp_path}"], f"evaluation.data={tmp_path}: has not all"),
        (["evaluation=data_selection", f"evaluation.data={tmp_path}"], "--tasks arc_challenge arc_easy hellaswag"),
        (["evaluation.tasks=[world_cloze,prox_arc]"], "prox_arc: no such task"),
    ):
        done = launch(*settings, f"output={tmp_path}/out")
        assert done.returncode == 2, done.stdout + done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert told in line
        assert not (tmp_path / "out").exists()
