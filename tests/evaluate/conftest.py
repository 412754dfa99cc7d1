"""A folder that stands for the hub: the datasets of the ten tasks, and of two of lm-eval's own, in the hub's layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from prox_hpc.evaluate import catalogue

Rows = list[dict[str, Any]]
Hub = Callable[[Path, dict[str, dict[str | None, dict[str, Rows]]]], Path]

ARC = {
    "id": "a",
    "question": "Which is a planet?",
    "choices": {"text": ["the Moon", "Mars", "the Sun"], "label": ["1", "2", "3"]},
    "answerKey": "2",
}
MMLU = {"question": "Find x in x + 1 = 2.", "choices": ["0", "1", "2", "3"], "answer": 1}
DATASETS: dict[str, dict[str | None, dict[str, Rows]]] = {
    "allenai/ai2_arc": {
        "ARC-Challenge": {"test": [ARC, ARC | {"answerKey": "3"}]},
        "ARC-Easy": {"train": [ARC | {"question": f"Number {n}?"} for n in range(5)], "test": [ARC] * 3},
    },
    "tau/commonsense_qa": {
        None: {
            "validation": [
                {
                    "id": "c",
                    "question": "Where does a book stand?",
                    "question_concept": "book",
                    "choices": {"label": list("ABCDE"), "text": ["shelf", "river", "cloud", "oven", "shoe"]},
                    "answerKey": "A",
                }
            ]
        }
    },
    "Rowan/hellaswag": {
        None: {
            "validation": [
                {
                    "ind": 1,
                    "activity_label": "Baking bread",
                    "ctx_a": "[header] How to bake [title] Mix the flour.",
                    "ctx_b": "then you",
                    "ctx": "unused",
                    "endings": ["knead it.", "[step] sing.", "sell the oven.", "go  home."],
                    "source_id": "s",
                    "split": "val",
                    "split_type": "indomain",
                    "label": "0",
                }
            ]
        }
    },
    "allenai/openbookqa": {
        "main": {
            "validation": [
                {
                    "id": "o",
                    "question_stem": "Ice melts when it is",
                    "choices": {"text": ["warmed", "cooled", "painted", "named"], "label": list("ABCD")},
                    "answerKey": "A",
                }
            ]
        }
    },
    "baber/piqa": {None: {"validation": [{"goal": "Dry a cup", "sol1": "Use a towel", "sol2": "Wet it", "label": 0}]}},
    "lighteval/siqa": {
        None: {
            "validation": [
                {
                    "context": "Ona gave Keld a map.",
                    "question": "Why?",
                    "answerA": "to sing",
                    "answerB": "to help",
                    "answerC": "to sleep",
                    "label": "2",
                }
            ]
        }
    },
    "allenai/winogrande": {
        "winogrande_xl": {
            "train": [{"sentence": "A _ b.", "option1": "x", "option2": "y", "answer": "1"}] * 3,
            "validation": [
                {
                    "sentence": "The cup fell off the shelf because the _ was slippery.",
                    "option1": "cup",
                    "option2": "shelf",
                    "answer": "2",
                }
            ],
        }
    },
    "allenai/sciq": {
        None: {
            "test": [
                {
                    "question": "What do plants make?",
                    "distractor3": "iron",
                    "distractor1": "salt",
                    "distractor2": "glass",
                    "correct_answer": "sugar",
                    "support": "Plants make sugar from light.",
                },
                {
                    "question": "What is wet?",
                    "distractor3": "sand",
                    "distractor1": "dust",
                    "distractor2": "ash",
                    "correct_answer": "water",
                    "support": "",
                },
            ]
        }
    },
    "cais/mmlu": {
        said.config: {"test": [MMLU | {"subject": said.config}]}
        for said in catalogue.task_files().values()
        if said.subset
    },
}


def write_hub(folder: Path, datasets: dict[str, dict[str | None, dict[str, Rows]]]) -> Path:
    """Datasets as the hub keeps them: NAME/CONFIG/SPLIT.parquet, and a card that lists them."""
    for name, configs in datasets.items():
        card = []
        for config, splits in configs.items():
            files = []
            for split, rows in splits.items():
                path = folder / name / (config or "data") / f"{split}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_pylist(rows), path)
                files.append({"split": split, "path": str(path.relative_to(folder / name))})
            card.append({"config_name": config or "default", "data_files": files})
        (folder / name / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': card})}---\n")
    return folder


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local folder in place of the hub, with few rows; look, don't touch."""
    return write_hub(tmp_path_factory.mktemp("hub"), DATASETS)


@pytest.fixture(scope="session")
def make_hub() -> Hub:
    """make_hub(folder, {dataset: {config: {split: rows}}}) -> the folder."""
    return write_hub


@pytest.fixture(scope="session")
def fetched(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `fetch` prepared for the ten tasks and two of lm-eval's own; look, don't touch."""
    from prox_hpc.evaluate.fetch import fetch

    folder = tmp_path_factory.mktemp("fetched")
    assert len(list(fetch(folder, ["prox_ten", "arc_easy", "winogrande@2"], hub))) == 68
    return folder
