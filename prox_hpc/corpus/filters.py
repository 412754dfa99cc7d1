"""The `filter` step: the field's rule baselines, as datatrove implements them, over a corpus.

Configuration: `rules`, in order, of gopher_repetition, gopher_quality, c4, fineweb (with datatrove's defaults), and
`source` when the corpus is files. C4 also edits: it keeps only lines that end a sentence. Product: a corpus artifact
of the documents that pass every rule, and per block the counts of what was dropped and why.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from prox_hpc.corpus.blocks import fails_alone, sound_blocks
from prox_hpc.corpus.read import Block, Document, Source, open_source, task_blocks
from prox_hpc.corpus.write import block_path, is_done, publish_counts, read_counts, write_block
from prox_hpc.errors import UserError
from prox_hpc.task import Task

RULES = ("gopher_repetition", "gopher_quality", "c4", "fineweb")


def run(task: Task) -> None:
    source = open_source(task)
    rules = make_rules(task.config["rules"])
    mine = task_blocks(source.blocks, task)
    for done, block in enumerate(mine):
        task.progress(done, len(mine), "blocks")
        if not is_done(task.out, block.index):
            with fails_alone(task, block):
                filter_block(task, source, block, rules)
    task.progress(len(mine), len(mine), "blocks")


def make_rules(names: list[str]) -> dict[str, Any]:
    """datatrove filters by name, in the order given; UserError for a name it does not have."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from loguru import logger

    logger.disable("datatrove")
    makers = dict(
        zip(RULES, (GopherRepetitionFilter, GopherQualityFilter, C4QualityFilter, FineWebQualityFilter), strict=True)
    )
    unknown = [name for name in names if name not in makers]
    if unknown or not names:
        raise UserError(f"arm.rules={names}: must name some of {', '.join(RULES)}")
    return {name: makers[name]() for name in names}


def filter_block(task: Task, source: Source, block: Block, rules: dict[str, Any]) -> None:
    """Write the documents of a block that pass, and its counts (documents_in = documents + dropped)."""
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    failed, repaired = source.failed.copy(), source.repaired.copy()

    def passing() -> Iterator[Document]:
        for document in source.read(block):
            counts["documents_in"] += 1
            counts["characters_in"] += len(document.text)
            text, reason = judge(document, rules)
            if text is None:
                dropped[reason] += 1
            else:
                yield Document(document.id, text, document.metadata)

    written = write_block(block_path(task.out, block.index), passing())
    publish_counts(
        task.out,
        block.index,
        {
            "documents_in": counts["documents_in"],
            "characters_in": counts["characters_in"],
            **written,
            "dropped": dict(dropped),
            "failed": dict(source.failed - failed),
            "failures": source.failures,
            "repaired": dict(source.repaired - repaired),
        },
    )


def judge(document: Document, rules: dict[str, Any]) -> tuple[str | None, str]:
    """The text after all rules and "", or None and "rule: datatrove's reason" of the first that drops it."""
    from datatrove.data import Document as TroveDocument

    trove = TroveDocument(text=document.text, id=document.id, metadata=dict(document.metadata))
    for name, rule in rules.items():
        try:
            verdict = rule.filter(trove)
        except Exception as error:  # other people's code on hostile text: costs the document, counted, not the task
            return None, f"{name}: {type(error).__name__}"
        if verdict is not True:
            reason = verdict[1] if isinstance(verdict, tuple) else "dropped"
            return None, f"{name}: {reason}"
    return trove.text, ""


def seal(task: Task) -> dict[str, Any]:
    """Totals over all blocks; RuntimeError when one is missing, its documents do not add up, or too many failed."""
    sound, failed = sound_blocks(task.out, open_source(task))
    blocks = read_counts(task.out, [block.index for block in sound])
    totals: dict[str, Counter[str]] = {key: Counter() for key in ("dropped", "failed", "repaired")}
    for counts in blocks:
        if counts["documents_in"] != counts["documents"] + sum(counts["dropped"].values()):
            raise RuntimeError(f"{task.out}: documents of a block do not add up: {counts}")
        for key, total in totals.items():
            total.update(counts[key])
    return {
        "blocks": len(blocks),
        "failed_blocks": len(failed),
        "documents_in": sum(counts["documents_in"] for counts in blocks),
        "documents_out": sum(counts["documents"] for counts in blocks),
        "characters_in": sum(counts["characters_in"] for counts in blocks),
        "characters_out": sum(counts["characters"] for counts in blocks),
        **{key: dict(total.most_common()) for key, total in totals.items()},
    }
