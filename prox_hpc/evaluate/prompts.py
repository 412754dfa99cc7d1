"""Prompts of the ten tasks of the ProX paper, named by `tasks/prox_*.yaml`: rows of a dataset -> query, choices, gold.

The prompts are those that FineWeb's ablations gave LightEval (its "early signal" tasks) and that the paper took over,
with LightEval's own for ARC, OpenBookQA, PIQA, WinoGrande and SciQ: no letters, no examples, the choice's own text
continues the query after one space. The 1,000 items of a larger task are LightEval's as well, so that scores can be
compared item by item: the first of the split shuffled by Python's generator with seed 42.
"""

import random
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import datasets

MOST_ITEMS = 1000
SEED = 42

Row = dict[str, Any]


def chosen(rows: int) -> list[int]:
    """The rows of a split that are asked, ascending: all, or the `MOST_ITEMS` that LightEval would ask."""
    order = list(range(rows))
    random.Random(SEED).shuffle(order)
    return sorted(order[:MOST_ITEMS])


def _of_rows(item: Callable[[Row], Row]) -> Callable[[datasets.Dataset], datasets.Dataset]:
    """lm-eval's `process_docs`: the chosen rows as items. Choosing twice changes nothing."""

    @wraps(item)
    def process(dataset: datasets.Dataset) -> datasets.Dataset:
        return datasets.Dataset.from_list([item(row) for row in dataset.select(chosen(len(dataset)))])

    return process


def _item(query: str, choices: list[str], gold: int) -> Row:
    return {"query": query, "choices": choices, "gold": gold}


@_of_rows
def arc(row: Row) -> Row:
    choices = row["choices"]
    return _item(f"Question: {row['question']}\nAnswer:", choices["text"], choices["label"].index(row["answerKey"]))


@_of_rows
def commonsense_qa(row: Row) -> Row:
    return _item(row["question"], row["choices"]["text"], "ABCDE".index(row["answerKey"].strip()))


@_of_rows
def hellaswag(row: Row) -> Row:
    """The query ends with a space of its own, so that two stand before a choice: as it was run for FineWeb and ProX."""
    context = f"{row['ctx_a']} {row['ctx_b'].capitalize()} "
    query = _without_marks(f"{row['activity_label']}: {context}")
    return _item(query, [_without_marks(ending) for ending in row["endings"]], int(row["label"]))


def _without_marks(text: str) -> str:
    """WikiHow's marks taken out of HellaSwag, one pass over double spaces."""
    return re.sub(r"\[.*?\]", "", text.replace(" [title]", ". ")).replace("  ", " ")


@_of_rows
def mmlu(row: Row) -> Row:
    subject = row["subject"].replace("_", " ")
    query = f"The following are questions about {subject}.\nQuestion: {row['question']}\nAnswer:"
    return _item(query, row["choices"], row["answer"])


@_of_rows
def openbookqa(row: Row) -> Row:
    return _item(row["question_stem"], row["choices"]["text"], "ABCD".index(row["answerKey"].strip()))


@_of_rows
def piqa(row: Row) -> Row:
    return _item(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], int(row["label"]))


@_of_rows
def siqa(row: Row) -> Row:
    choices = [row["answerA"], row["answerB"], row["answerC"]]
    return _item(f"{row['context']} {row['question']}", choices, int(row["label"]) - 1)


@_of_rows
def winogrande(row: Row) -> Row:
    before, _, after = row["sentence"].partition("_")
    choices = [f"{row[option]} {after.strip()}" for option in ("option1", "option2")]
    return _item(before, choices, int(row["answer"]) - 1)


@_of_rows
def sciq(row: Row) -> Row:
    choices = [row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"]]
    return _item(f"{row['support']}\nQuestion: {row['question']}\nAnswer:".strip(), choices, 3)
