"""Prompt and choices of each of the ten tasks, as lm-eval sends them, for items made by hand."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.evaluate import prompts
from prox_hpc.evaluate.harness import Data, load_tasks

# (what the model is given, the continuations whose likelihoods are compared, the right one)
PINNED: dict[str, tuple[str, list[str], int]] = {
    "prox_arc_easy": ("Question: Which is a planet?\nAnswer:", [" the Moon", " Mars", " the Sun"], 1),
    "prox_arc_challenge": ("Question: Which is a planet?\nAnswer:", [" the Moon", " Mars", " the Sun"], 1),
    "prox_commonsense_qa": ("Where does a book stand?", [" shelf", " river", " cloud", " oven", " shoe"], 0),
    "prox_hellaswag": (
        "Baking bread: How to bake. Mix the flour. Then you ",
        [" knead it.", "  sing.", " sell the oven.", " go home."],
        0,
    ),
    "prox_mmlu_high_school_physics": (
        "The following are questions about high school physics.\nQuestion: Find x in x + 1 = 2.\nAnswer:",
        [" 0", " 1", " 2", " 3"],
        1,
    ),
    "prox_openbookqa": ("Ice melts when it is", [" warmed", " cooled", " painted", " named"], 0),
    "prox_piqa": ("Question: Dry a cup\nAnswer:", [" Use a towel", " Wet it"], 0),
    "prox_siqa": ("Ona gave Keld a map. Why?", [" to sing", " to help", " to sleep"], 1),
    "prox_winogrande": (
        "The cup fell off the shelf because the ",
        ["cup was slippery.", "shelf was slippery."],
        1,
    ),
    "prox_sciq": (
        "Plants make sugar from light.\nQuestion: What do plants make?\nAnswer:",
        [" salt", " glass", " iron", " sugar"],
        3,
    ),
}


@pytest.fixture(scope="module")
def tasks(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """lm-eval's task objects by name."""
    names = [*PINNED, "arc_easy@2", "arc_easy@0", "winogrande"]
    with load_tasks(names, Data(None, fetched), tmp_path_factory.mktemp("state")) as loaded:
        yield {task.task_name: task for task in loaded.objects}


def asked(task: Any, item: int = 0) -> list[tuple[str, str]]:
    """(context, continuation) of each request of one item."""
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)  # as simple_evaluate does
    task.set_fewshot_seed(seed=1)
    task.build_all_requests(rank=0, world_size=1)
    return [instance.args for instance in task.instances if instance.doc_id == item]


@pytest.mark.parametrize("name", PINNED)
def test_prompt_choices_and_gold(tasks: dict[str, Any], name: str) -> None:
    context, continuations, gold = PINNED[name]
    assert asked(tasks[name]) == [(context, continuation) for continuation in continuations]
    assert tasks[name].doc_to_target(tasks[name].eval_docs[0]) == gold


def test_an_item_without_support_begins_with_the_question(tasks: dict[str, Any]) -> None:
    assert asked(tasks["prox_sciq"], 1)[0][0] == "Question: What is wet?\nAnswer:"


def test_the_length_is_that_of_the_choice_without_the_space(tasks: dict[str, Any]) -> None:
    task = tasks["prox_openbookqa"]  # warmed, cooled, painted, named: 6, 6, 7 and 5 characters
    # warmed has -1.000 a character and named -1.020; with the space they would have -0.857 and -0.850
    answers = [(-6.0, False), (-9.0, False), (-9.0, False), (-5.1, False)]
    assert task.process_results(task.eval_docs[0], answers) == {"acc": 0.0, "acc_norm": 1.0}


def test_lm_evals_own_tasks_read_the_folder_with_examples_of_the_train_split(tasks: dict[str, Any]) -> None:
    (context, continuation), *_ = asked(tasks["arc_easy@2"])
    assert context.count("Question: Number ") == 2
    assert context.count("Answer: Mars") == 2
    assert context.endswith("Question: Which is a planet?\nAnswer:")
    assert continuation == " the Moon"
    assert asked(tasks["arc_easy@0"])[0] == ("Question: Which is a planet?\nAnswer:", " the Moon")
    assert asked(tasks["winogrande"])[1][0] == "The cup fell off the shelf because the shelf"


def test_the_items_of_a_large_task_are_those_that_lighteval_draws() -> None:
    rows = list(range(2376))
    generator = random.Random()
    generator.seed(42)
    generator.shuffle(rows)
    assert prompts.chosen(2376) == sorted(rows[:1000])
    assert prompts.chosen(999) == list(range(999))
    assert prompts.chosen(1000) == list(range(1000)), "choosing twice changes nothing"
