"""What names in `evaluation.tasks` mean, and the score of a group."""

import math

import pytest

from prox_hpc.errors import UserError
from prox_hpc.evaluate import catalogue
from prox_hpc.evaluate.scores import with_groups

SUBSETS = 57


def test_the_ten_tasks_are_66_and_mmlu_is_one_of_ten() -> None:
    ten = catalogue.members("prox_ten")
    assert len(ten) == 10
    assert len(catalogue.members("prox_mmlu")) == SUBSETS
    leaves = catalogue.leaves(["prox_ten", "prox_mmlu_anatomy", "world_bpb", "lambada_openai"])
    assert len(leaves) == 9 + SUBSETS + 2
    assert len(set(leaves)) == len(leaves)
    assert catalogue.all_groups(["prox_ten"]) == {"prox_mmlu": catalogue.members("prox_mmlu"), "prox_ten": ten}


def test_a_group_hands_its_number_of_examples_on() -> None:
    assert catalogue.leaves(["prox_eight@2"])[:3] == ["arc_challenge@2", "arc_easy@2", "hellaswag@2"]
    assert catalogue.parse("arc_easy@2") == ("arc_easy", 2)
    assert catalogue.parse("arc_easy") == ("arc_easy", None)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "is empty"),
        (["prox_arc"], "prox_arc: no such task"),
        (["world_clozes"], "world_clozes: no such task"),
        (["arc_easy@two"], "arc_easy@two: after @ stands the number"),
        (["arc_easy@-1"], "after @"),
        (["arc_easy@"], "after @"),
        (["prox_sciq@2"], "zero-shot; write prox_sciq"),
        (["sciq", "sciq"], "sciq stands there twice"),
    ],
)
def test_names_that_cannot_be_meant(names: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        catalogue.check(names)


def test_names_that_can_be_meant() -> None:
    catalogue.check(["prox_ten", "prox_eight@0", "prox_eight@2", "arc_easy", "world_bpb", "prox_sciq@0", "mmlu"])


def test_a_group_is_the_plain_mean_of_its_members_and_mmlu_counts_as_one() -> None:
    ten = catalogue.members("prox_ten")
    leaves = catalogue.leaves(["prox_ten"])
    scores = {name: {"acc": 0.5, "acc_norm": 0.4, "acc_norm_stderr": 0.03, "acc_stderr": 0.03} for name in leaves}
    scores["prox_mmlu_anatomy"]["acc_norm"] = 0.97
    scores["prox_sciq"]["acc_norm"] = 0.7
    found = with_groups(scores, catalogue.all_groups(["prox_ten"]))
    mmlu = 0.4 + 0.57 / SUBSETS
    assert found["prox_mmlu"]["acc_norm"] == pytest.approx(mmlu)
    assert found["prox_ten"]["acc_norm"] == pytest.approx((0.4 * 8 + mmlu + 0.7) / len(ten))
    assert found["prox_mmlu"]["acc_norm_stderr"] == pytest.approx(0.03 / math.sqrt(SUBSETS))
    assert found["prox_ten"]["acc_norm_stderr"] == pytest.approx(0.03 * math.sqrt(9 + 1 / SUBSETS) / 10)


def test_a_member_with_accuracy_alone_counts_with_it() -> None:
    scores = {"a": {"acc": 0.6, "acc_norm": 0.2, "acc_norm_stderr": 0.1}, "b": {"acc": 0.8, "acc_stderr": 0.1}}
    found = with_groups(scores, {"both": ["a", "b"]})["both"]
    assert found["acc_norm"] == pytest.approx(0.5)
    assert found["acc"] == pytest.approx(0.7)
    assert "acc_stderr" not in found, "a's is not known"
    with pytest.raises(KeyError, match="c"):
        with_groups(scores, {"more": ["a", "c"]})
