"""The ledger of a study: every row that computes, in FLOPs and in hours, and what of it an arm is charged with.

FLOPs by Kaplan's rule (training 6 N D, inference 2 N D, N without one embedding matrix, as the paper counts), beside it
the exact count with attention and LM head where the shape is known (`prox_hpc.train.flops`). Hours are those of the
steps (`prox_hpc.report.usage`); the rows of the refine step share its hours by their FLOPs. Rows are switched in and
out by `report.charge`; what is charged is what one training run needs, so a row of several runs counts by its mean,
and of the passes over the corpus, which several arms may share, an arm is charged with the tokens that it needs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from prox_hpc.report.collect import Run, Study, checkpoints, load_json
from prox_hpc.report.matched import Account, Charge
from prox_hpc.report.usage import Usage, total, used
from prox_hpc.train.flops import Flops, inference_flops, training_flops

REFINING = ("annotation", "base_training", "sft", "doc_pass", "chunk_prefill", "chunk_decode")
"""Rows that refined arms share; in the ledger's order, then those that every arm has for itself."""
ROWS = (*REFINING, "filtering", "tokenising", "pretraining", "evaluation")
SPREAD = ("doc_pass", "chunk_prefill", "chunk_decode", "filtering", "tokenising")
"""What grows with the corpus, and so can be charged by how much of it is used (`report.prorate`)."""


UNKNOWN_SIZE = "the size that is charged for was not recorded; set refiner.parameters"


@dataclass(frozen=True)
class Model:
    """What the FLOPs of a refiner are counted by, as `prox_hpc.train.flops` names it. layers 0: its shape is unknown.

    context: in tokens, over which the attention of training is counted.
    """

    parameters: int
    layers: int = 0
    hidden: int = 0
    context: int = 0
    head: int = 0
    tied: bool = False

    @staticmethod
    def counted(recorded: Mapping[str, int]) -> "Model":
        """From the counts of `Parameters` with layers, hidden and context beside them."""
        size, shape = recorded["minus_one_embedding"], {key: recorded[key] for key in ("layers", "hidden", "context")}
        return Model(size, **shape, head=recorded["total"] - size, tied=recorded["non_embedding"] == size)

    def training(self, tokens: float) -> tuple[float, float | None]:
        """FLOPs by the rule, and exact ones, None when the shape is unknown."""
        shape = {"layers": self.layers, "hidden": self.hidden, "context": self.context}
        return self._told(training_flops(self.parameters, tokens, **shape, head=self.head, tied=self.tied))

    def inference(self, prefill: float, decode: float, requests: float) -> tuple[float, float | None]:
        """As `training`, of reading and writing so many tokens over all requests."""
        shape = {"layers": self.layers, "hidden": self.hidden, "head": self.head}
        return self._told(inference_flops(self.parameters, prefill, decode, requests=requests, **shape, tied=self.tied))

    def _told(self, flops: Flops) -> tuple[float, float | None]:
        return flops.kaplan, flops.exact if self.layers else None


@dataclass(frozen=True)
class Row:
    """One line of the ledger.

    row: of `ROWS`. stage: what exactly. flops: Kaplan; exact: with attention and LM head, None when the shape is
    unknown. flops None: missing, or what the count needs was not recorded (`note` says which). unmeasured: it cost
    something that nobody measured, so it is charged as nothing and said to be missing. elsewhere: made by no step, so
    that nobody measured its hours, whatever is known of its FLOPs. arm: whose cost it is; None for what refined arms
    share. runs: how many training runs the figures are the sum of. charged: switched in.
    """

    row: str
    stage: str
    flops: float | None
    exact: float | None = None
    tokens: float | None = None
    parameters: int | None = None
    arm: str | None = None
    runs: int = 1
    gpu_hours: float | None = None
    cpu_hours: float | None = None
    kwh: float | None = None
    hours_from: str = ""
    unmeasured: bool = False
    elsewhere: bool = False
    charged: bool = False
    note: str = ""

    def part(self, share: float) -> "Row":
        """This share of all it cost."""
        if share == 1:
            return self
        amounts = {key: getattr(self, key) for key in ("flops", "exact", "tokens", "gpu_hours", "cpu_hours", "kwh")}
        return replace(self, **{key: share * value for key, value in amounts.items() if value is not None})

    def over(self, usage: Usage | None) -> "Row":
        """With the hours of the step that did it."""
        if usage is None:
            return self
        timed = replace(self, gpu_hours=usage.gpu_hours, cpu_hours=usage.cpu_hours, kwh=usage.kwh)
        return replace(timed, hours_from=usage.source, elsewhere=False)


Amount = Callable[[Row], float | None]


@dataclass(frozen=True)
class Ledger:
    """All rows of a study, and the usage of its steps. why: the reason where accounting was not asked or had no answer.

    shares: arm -> row -> the share of the row that it needs, see `pass_shares`; of any other row it needs all.
    hours: `gpu` or `cpu`, whichever the trainees ran on.
    """

    rows: list[Row]
    usages: dict[str, Usage | None] = field(default_factory=dict)
    why: str = ""
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    hours: str = field(init=False)

    def __post_init__(self) -> None:
        gpu = any(row.gpu_hours for row in self.rows if row.row == "pretraining")
        object.__setattr__(self, "hours", "gpu" if gpu else "cpu")

    def amount(self, unit: str) -> Amount:
        """How much of a unit (`flops`, `exact_flops`, `hours`) a row has; None when that is not known.

        Hours spent elsewhere count as none, and the report names them (`charges`).
        """
        if unit == "flops":
            return lambda row: row.flops
        if unit == "exact_flops":
            return lambda row: row.exact if row.flops else row.flops
        key = f"{self.hours}_hours"
        return lambda row: 0.0 if row.elsewhere else getattr(row, key)

    def pretraining(self, arm: str) -> Row | None:
        return next((row for row in self.rows if row.row == "pretraining" and row.arm == arm and row.flops), None)

    def per_flop(self, arm: str, unit: str) -> float | None:
        """Units of an arm's training runs per training FLOP; None when unknown."""
        row = self.pretraining(arm)
        amount = self.amount(unit)(row) if row else None
        return amount / row.flops if row and row.flops and amount else None

    def hours_spread(self) -> float | None:
        """How much longer the slowest arm trained than the fastest for the same FLOPs; None when hours are not known.

        Above 1 where machines were shared or unlike: then hours say something about the machines, too.
        """
        trained = {row.arm for row in self.rows if row.row == "pretraining" and row.arm}
        rates = [rate for arm in trained if (rate := self.per_flop(arm, "hours"))]
        return max(rates) / min(rates) if rates else None


def charged_to(ledger: Ledger, name: str, arm: Mapping[str, Any]) -> list[Row]:
    """The rows an arm is charged with, as much of each as it needs. arm: its configuration (kind, doc, chunk)."""

    def concerns(row: Row) -> bool:
        if row.arm is not None:
            return row.arm == name
        uses = {"doc_pass": arm.get("doc"), "chunk_prefill": arm.get("chunk"), "chunk_decode": arm.get("chunk")}
        return arm["kind"] == "refined" and bool(uses.get(row.row, True))

    shares = ledger.shares.get(name, {})
    return [row.part(shares.get(row.row, 1.0)) for row in ledger.rows if row.charged and concerns(row)]


def charge(rows: Iterable[Row], amount: Amount, over: float | None = None) -> Charge | None:
    """The sum of rows beside pre-training, for one run; None when one has no figure. over: see `Charge`."""
    fixed = spread = 0.0
    for row in rows:
        if row.row == "pretraining" or row.unmeasured:
            continue
        value = amount(row)
        if value is None:
            return None
        fixed, spread = (fixed, spread + value) if row.row in SPREAD else (fixed + value / row.runs, spread)
    return Charge(fixed, spread, over)


def accounts(study: Study, ledger: Ledger, base: str, arm: str) -> dict[str, Account]:
    """Per unit of compute how (base, arm) are charged; units whose training cost is not known are left out."""
    found = {}
    for unit in ("flops", "exact_flops", "hours"):
        rates = [1.0 if unit == "flops" else ledger.per_flop(name, unit) for name in (base, arm)]
        charges = [arm_charge(study, ledger, name, unit) for name in (base, arm)]
        if rates[0] is None or rates[1] is None:
            continue
        known = (charges[0], charges[1]) if charges[0] is not None and charges[1] is not None else None
        found[unit] = Account((rates[0], rates[1]), known if study.settings.charge.pretraining else None)
    return found


def arm_charge(study: Study, ledger: Ledger, name: str, unit: str, only: str = "") -> Charge | None:
    """What an arm is charged with beside pre-training, as `report.prorate` says; None when not known.

    only: of `ROWS`, this one alone.
    """
    rows = [row for row in charged_to(ledger, name, study.config["arm"][name]) if only in ("", row.row)]
    return charge(rows, ledger.amount(unit), _due_over(study, ledger, name, unit))


def _due_over(study: Study, ledger: Ledger, name: str, unit: str) -> float | None:
    """Training (in the unit) over which what grows with the corpus falls due: a run, or one pass over the pool."""
    row = ledger.pretraining(name)
    amount = ledger.amount(unit)(row) if row else None
    if study.settings.prorate == "none" or row is None or amount is None:
        return None
    run = amount / row.runs
    if study.settings.prorate == "run":
        return run
    epochs = [
        about["epochs"] for seed in study.config["seeds"] if (about := training(study, f"pretrain/{name}/seed{seed}"))
    ]
    return run / fmean(epochs)


def build_ledger(study: Study, runs: list[Run]) -> Ledger:
    """All rows, each with its figures or with a note why it has none."""
    usages, why = used(study)

    def usage(*roles: str) -> Usage | None:
        return total([usages.get(study.roles[role]) for role in roles if role in study.roles])

    rows = []
    if "refine" in study.roles:
        rows += [row.over(usage(*roles)) for row, roles in refiner_rows(study)]
        rows += _sharing(pass_rows(study), usage("refine"))
        rows += [row.over(usage("pilot")) for row in pilot_rows(study)]
    for arm in study.arms():
        if f"arm/{arm}" in study.roles:
            kind = study.config["arm"][arm]["kind"]
            named = {"rule": "rule filter", "classifier": "classifier", "random": "drawing lots"}
            what = named.get(kind, "executing programs")
            hours = usage(f"arm/{arm}", f"classifier/{arm}", f"scores/{arm}")
            note = "the verdicts it learnt from are not charged" if kind == "classifier" else ""
            rows.append(Row("filtering", what, 0.0, arm=arm, note=note).over(hours))
        rows.append(Row("tokenising", "tokenising", 0.0, arm=arm).over(usage(f"tokens/{arm}")))
    for arm in study.arms():
        roles = [f"pretrain/{arm}/seed{seed}" for seed in study.config["seeds"]]
        trained = {role: about for role in roles if (about := training(study, role))}
        row = training_row("pretraining", "pre-training", list(trained.values()), len(roles), arm)
        rows.append(row.over(usage(*trained)))
    for arm in study.arms():
        own = [run for run in runs if run.arm == arm]
        rows.append(evaluation_row(study, own).over(usage(*(_evaluation(run) for run in own if run.evaluate))))
    switches = study.settings.charge
    ordered = sorted(rows, key=lambda row: ROWS.index(row.row))
    charged = [replace(row, charged=getattr(switches, row.row)) for row in ordered]
    return Ledger(charged, usages, why, {arm: pass_shares(study, arm) for arm in study.arms()})


def training(study: Study, role: str) -> dict[str, Any]:
    """What a training run (roles `adapt`, `pretrain/...`) recorded of itself; {} when missing."""
    folder = study.artifact(role)
    path = folder / ("refiner.json" if role == "adapt" else "run.json") if folder else None
    if path is None or not path.exists():
        return {}
    about: dict[str, Any] = load_json(path)
    return about.get("training", about)


def training_row(row: str, stage: str, runs: list[dict[str, Any]], planned: int, arm: str | None) -> Row:
    """6 N D of these runs together."""
    if not runs:
        return Row(row, stage, None, arm=arm, note="not trained yet")
    return Row(
        row,
        stage,
        sum(run["flops"] for run in runs),
        exact=sum(run["exact_flops"] for run in runs),
        tokens=sum(run["tokens"] for run in runs),
        parameters=runs[0]["parameters"]["minus_one_embedding"],
        arm=arm,
        runs=len(runs),
        note=f"{len(runs)} of {planned} runs" if planned > 1 else "",
    )


def refiner_rows(study: Study) -> list[tuple[Row, tuple[str, ...]]]:
    """Labels, base and SFT of the refiner, each with the roles of the steps that made it here."""
    settings = study.settings
    models = [model for stage in ("doc", "chunk") if (model := refiner_model(study, stage))]
    model = max(models, key=lambda model: model.parameters, default=None)  # both are made from one base
    made = study.config["refiner"]["train"]

    def given(row: str, stage: str, key: str, here: str) -> Row:
        figure = getattr(settings, key)
        if figure is None and made:
            return Row(row, stage, 0.0, gpu_hours=0.0, cpu_hours=0.0, note=here)
        if figure is None:
            note = f"made elsewhere; report.{key} would fill it in"
            return Row(row, stage, None, unmeasured=True, elsewhere=True, note=note)
        told = f"as report.{key} says"
        if key == "annotation_flops":
            return Row(row, stage, figure, exact=figure, elsewhere=True, note=told)
        if model is None:
            return Row(row, stage, None, tokens=figure, elsewhere=True, note=UNKNOWN_SIZE)
        flops, exact = model.training(figure)
        size = model.parameters
        return Row(row, stage, flops, exact=exact, tokens=figure, parameters=size, elsewhere=True, note=told)

    if made:
        about = training(study, "adapt")
        sft = training_row("sft", "SFT of the refiner", [about] if about else [], 1, None)
    else:
        sft = given("sft", "SFT of the refiner", "sft_tokens", "")
    from_gold, from_scratch = "gold labels: there is no annotator", "from scratch: there is no base model"
    return [
        (given("annotation", "seed annotation", "annotation_flops", from_gold), ("labels",)),
        (given("base_training", "base of the refiner", "base_tokens", from_scratch), ()),
        (sft, ("adapt",)),
    ]


def pilot_rows(study: Study) -> list[Row]:
    """The doc pass over the pilot sample that set the threshold."""
    pilot = study.summary("pilot")
    if not pilot:
        return []
    tokens, scored = pilot["tokens"]["doc_prefill"], pilot["documents"]["scored"]
    return [pass_row(study, "doc_pass", "doc pass, pilot", "doc", tokens, 0, scored)]


def pass_shares(study: Study, arm: str) -> dict[str, float]:
    """Row of the passes -> the share of its tokens that an arm needs, as its execute step counted them.

    {} where it counted none: not executed yet, by an older prox_hpc, or no refined arm.
    """
    needed, made = study.summary(f"arm/{arm}").get("tokens", {}), study.summary("refine").get("tokens", {})
    kinds = {"doc_pass": "doc_prefill", "chunk_prefill": "chunk_prefill", "chunk_decode": "chunk_decode"}
    shares = {row: needed[kind] / made[kind] for row, kind in kinds.items() if kind in needed and made.get(kind)}
    cached = made.get("chunk_cached", 0)
    if cached and "chunk_prefill" in shares and not shares.get("doc_pass"):
        # what was read with the doc prompts this arm alone would have had to read itself
        shares["chunk_prefill"] *= made["chunk_prefill"] / max(1, made["chunk_prefill"] - cached)
    return shares


def pass_rows(study: Study) -> list[Row]:
    """Doc pass and chunk pass, prefill and decode, from the refine step's token counts.

    Tokens of chunk prompts that the server had read before, with the doc prompt, were not computed a second time.
    """
    summary = study.summary("refine")
    if not summary:
        stages = (("doc_pass", "doc pass"), ("chunk_prefill", "chunk pass"))
        return [Row(row, stage, None, note="not refined yet") for row, stage in stages]
    tokens, statuses = summary["tokens"], summary["programs"]
    cached = {"doc": 0, "chunk": tokens.get("chunk_cached", 0)}
    asked = statuses["doc"].get("ok", 0)
    programmed = sum(n for status, n in statuses["chunk"].items() if status not in ("oversized", "no_program"))
    rows = []
    for stage, requests, keys in (
        ("doc", asked, ("doc_pass", "doc_pass")),
        ("chunk", programmed, ("chunk_prefill", "chunk_decode")),
    ):
        prefill, decode = tokens[f"{stage}_prefill"], tokens[f"{stage}_decode"]
        if prefill:
            read = pass_row(study, keys[0], f"{stage} pass, prefill", stage, prefill, 0, requests)
            rows.append(_computed(read, prefill - cached[stage]))
        if decode:
            rows.append(pass_row(study, keys[1], f"{stage} pass, decode", stage, prefill, decode, requests))
    return rows


def pass_row(study: Study, row: str, name: str, stage: str, prefill: float, decode: float, requests: float) -> Row:
    """The reading of `prefill` tokens, or, with `decode`, the writing alone: what both cost less the reading."""
    model, count = refiner_model(study, stage), decode or prefill
    if model is None:
        return Row(row, name, None, tokens=count, note=UNKNOWN_SIZE)
    flops, exact = model.inference(prefill, 0, requests)
    if decode:
        both, both_exact = model.inference(prefill, decode, requests)
        flops = both - flops
        exact = both_exact - exact if both_exact is not None and exact is not None else None
    return Row(row, name, flops, exact=exact, tokens=count, parameters=model.parameters)


def _computed(row: Row, tokens: float) -> Row:
    """A prefill row of which only `tokens` were computed: each cost as much, since it attends to all before."""
    if not row.tokens or tokens == row.tokens:
        return row
    kept = f"{row.tokens - tokens:,.0f} more prompt tokens had been read before (prefix cache)"
    return replace(row.part(tokens / row.tokens), note="; ".join(filter(None, (row.note, kept))))


def _sharing(rows: list[Row], usage: Usage | None) -> list[Row]:
    """The hours of one step shared out among its rows, by FLOPs or, where these are unknown, by tokens."""
    weights = [row.flops if all(r.flops for r in rows) else row.tokens for row in rows]
    whole = sum(weight or 0 for weight in weights)
    if usage is None or not whole:
        return rows
    shared = [row.over(usage.share((weight or 0) / whole)) for row, weight in zip(rows, weights, strict=True)]
    return [replace(row, hours_from=f"{row.hours_from}, by FLOPs") for row in shared] if len(rows) > 1 else shared


def refiner_model(study: Study, stage: str) -> Model | None:
    """The model of a stage, with its shape where it was made here or has recorded it; None when its size is unknown.

    Artifacts of an older prox_hpc recorded `non_embedding` and `total` alone: whether these are one matrix apart (then
    the size is `non_embedding`) or two (then it is their mean) cannot be told from them.
    """
    made, given = training(study, "adapt"), study.config["refiner"].get("parameters")
    if made:
        shape = study.config["refiner"]["shape"]
        names = {"layers": "num_hidden_layers", "hidden": "hidden_size", "context": "max_position_embeddings"}
        return Model.counted(made["parameters"] | {key: shape[name] for key, name in names.items()})
    recorded = study.summary("refine").get("parameters", {}).get(stage) or {}
    size = recorded.get("minus_one_embedding")
    if size and given in (None, size):
        return Model.counted(recorded)
    return Model(given) if given else None


def evaluation_row(study: Study, runs: list[Run]) -> Row:
    """2 N per token sent through an arm's trainees while scoring them; exactly, the forward pass of their training.

    That has the LM head at every token, as scoring has, and attention over a whole context, which texts seldom fill.
    """
    flops, exact, tokens, scored = 0.0, 0.0, 0, 0
    for run in runs:
        about = training(study, f"pretrain/{run.arm}/seed{run.seed}")
        if not run.evaluate or not about:
            continue
        count = sum(entry["forward_tokens"] for entry in checkpoints(run))
        flops += 2 * about["parameters"]["minus_one_embedding"] * count
        exact += about["exact_flops"] / (3 * about["tokens"]) * count
        tokens, scored = tokens + count, scored + 1
    row = Row("evaluation", "evaluation", None, arm=runs[0].arm if runs else None, note=f"{scored} of {len(runs)} runs")
    return replace(row, flops=flops, exact=exact, tokens=tokens, runs=scored) if scored else row


def _evaluation(run: Run) -> str:
    return f"evaluate/{run.arm}/seed{run.seed}"
