"""FLOPs of training and inference: Kaplan's rule, and the count with attention and LM head beside it.

Kaplan et al. 2020 (section 2.1): a forward pass costs 2 N per token, training 6 N. The ProX paper charges itself by
this rule with N = all parameters but one embedding matrix (`Parameters.minus_one_embedding`), so that is the N passed
here. The exact count has the matrices a token is really multiplied by (the LM head even if it is tied) and adds what
the rule leaves out: 4 * layers * hidden * length per token for the attention scores and their weighted sum, over the
whole context, as kernels execute and profilers count (a causal mask would need half). A test holds it against torch's
FLOP counter.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Flops:
    """kaplan: by the rule. exact: matrices, LM head and attention."""

    kaplan: float
    exact: float


def training_flops(
    parameters: int, tokens: float, *, layers: int, hidden: int, context: int, head: int = 0, tied: bool = False
) -> Flops:
    """FLOPs to train on `tokens` tokens in rows of `context`.

    parameters: N of the rule. layers, hidden: of the attention (hidden = heads * head dimension). head: parameters of
    the LM head (vocabulary * hidden size); tied: N does not hold them, because they are the embedding.
    """
    forward = 2 * (parameters + (head if tied else 0)) + 4 * layers * hidden * context
    return Flops(kaplan=6.0 * parameters * tokens, exact=3.0 * forward * tokens)


def inference_flops(
    parameters: int,
    prefill: float,
    decode: float = 0,
    *,
    layers: int = 0,
    hidden: int = 0,
    requests: float = 1,
    head: int = 0,
    tied: bool = False,
) -> Flops:
    """FLOPs to read `prefill` and write `decode` tokens, in all, over `requests` requests taken to be equally long.

    Other arguments as for training. In the exact count a server applies the LM head once per answer token (once per
    request when nothing is written: the doc stage), and a prompt's attention is counted whole (length squared).
    Requests of unequal length cost more attention than this says: add up groups of similar length for a closer count.
    """
    requests = max(requests, 1)
    prompt, answer = prefill / requests, decode / requests
    pairs = requests * (prompt * prompt + answer * prompt + answer * (answer + 1) / 2)
    body = parameters - (0 if tied else head)
    exact = 2 * body * (prefill + decode) + 2 * head * max(decode, requests) + 4 * layers * hidden * pairs
    return Flops(kaplan=2.0 * parameters * (prefill + decode), exact=float(exact))
