"""The SGLang requests that the sides of `bench_refine.py` send; imports nothing, for every environment to read."""

from __future__ import annotations

from typing import Any

GREEDY = {"temperature": 0}


def doc_request(keep_id: int, drop_id: int) -> dict[str, Any]:
    """One forward pass: the log-probabilities of the two answers' first tokens."""
    return {
        "sampling_params": {**GREEDY, "max_new_tokens": 1},
        "return_logprob": True,
        "logprob_start_len": -1,
        "token_ids_logprob": [keep_id, drop_id],
    }


def answer_sampling(max_new_tokens: int, stops: bool) -> dict[str, Any]:
    """A generated doc answer. stops: at the model's end of sequence; otherwise always `max_new_tokens`."""
    return {**GREEDY, "max_new_tokens": max_new_tokens, "ignore_eos": not stops}


def program_sampling(max_new_tokens: int, eos_id: int, grammar: str | None, stops: bool = True) -> dict[str, Any]:
    """A chunk program, within the grammar if one is given; without stops it fills `max_new_tokens`."""
    sampling: dict[str, Any] = {**GREEDY, "max_new_tokens": max_new_tokens}
    if grammar is not None:
        sampling["ebnf"] = grammar
    return sampling | ({"stop_token_ids": [eos_id]} if stops else {"ignore_eos": True})
