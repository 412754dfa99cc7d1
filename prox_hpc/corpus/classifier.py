"""The `classifier` step: a cheap text classifier learnt from verdicts on documents, which a refiner has to beat.

Logistic regression on hashed words and pairs of words, by scikit-learn. It is as simple as fastText, and stands in its
place because training repeats itself exactly and the model is plain arrays.

It learns from the gold verdicts of a seed corpus (those the refiner learnt from) or, where the refiner was given and
there is none, from what the arm it is compared with kept and dropped. Configuration: `examples`, the documents to
learn from at most; `seed`; `source` when these are files. Inputs: `corpus` when they are an artifact, and `like`, the
arm whose verdicts are learnt, when they have no gold. Products: `classifier.npz` and, last, `classifier.json`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from prox_hpc.corpus.blocks import documents
from prox_hpc.corpus.read import Source, open_source
from prox_hpc.corpus.write import block_path
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_file, publish_json
from prox_hpc.task import Task

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MODEL: Final = "classifier.npz"
FIGURES: Final = "classifier.json"
FEATURES: Final = 1 << 20
READ_CHARACTERS: Final = 20_000
"""What is read of a document, some five pages: the doc stage reads at most 2,000 tokens."""
STRENGTH: Final = 30.0
"""Inverse of the regularisation (scikit-learn's C)."""
HELD_OUT: Final = 10
"""Every tenth document is kept back to measure the classifier."""
BLOCKS: Final = 200
"""Blocks looked into at most, evenly spaced, where an arm's verdicts are learnt."""


@dataclass(frozen=True)
class Classifier:
    """weights: (FEATURES,) float64. The higher the score the better; 0 is where keeping is as likely as dropping."""

    weights: np.ndarray
    intercept: float

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Log-odds of keeping, (len(texts),) float64."""
        found: np.ndarray = features(texts) @ self.weights + self.intercept
        return found

    def save(self, path: Path) -> None:
        """As arrays, without pickle."""
        with path.open("wb") as file:
            np.savez_compressed(file, weights=self.weights, intercept=self.intercept)

    @staticmethod
    def load(artifact: Path) -> "Classifier":
        """That of a classifier step's artifact."""
        with np.load(artifact / MODEL, allow_pickle=False) as arrays:
            return Classifier(arrays["weights"], float(arrays["intercept"]))


def features(texts: Sequence[str]) -> "csr_matrix":
    """Hashed counts of words, punctuation and pairs of them in the beginnings of texts: (len(texts), FEATURES)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", n_features=FEATURES)
    return hashing.transform([text[:READ_CHARACTERS] for text in texts])


def train(texts: Sequence[str], kept: Sequence[bool], seed: int) -> tuple[Classifier, dict[str, Any]]:
    """A classifier of kept and dropped texts, and how well it tells those apart that were kept back from it.

    UserError when all the texts it would learn from, or all those kept back, have the same verdict.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, roc_auc_score

    verdicts = np.asarray(kept, dtype=bool)
    held = np.arange(len(verdicts)) % HELD_OUT == HELD_OUT - 1
    if any(len(set(verdicts[part])) < 2 for part in (held, ~held)):
        raise UserError(
            f"arm of kind classifier: {verdicts.sum()} of the {len(verdicts)} documents it would learn from were kept, "
            "which teaches it nothing; give an arm that keeps some and drops some as `like`, or a larger corpus"
        )
    table = features(texts)
    # liblinear: one thread and a seeded order, so the same documents give the same model
    model = LogisticRegression(C=STRENGTH, solver="liblinear", random_state=seed).fit(table[~held], verdicts[~held])
    classifier = Classifier(model.coef_[0], float(model.intercept_[0]))
    scores = table[held] @ classifier.weights + classifier.intercept
    return classifier, {
        "documents": len(verdicts),
        "kept": int(verdicts.sum()),
        "held_out": int(held.sum()),
        "f1": float(f1_score(verdicts[held], scores >= 0)),
        "auc": float(roc_auc_score(verdicts[held], scores)),
    }


def run(task: Task) -> None:
    """Train on the step's verdicts and publish; UserError when there are none, or only of one kind."""
    if (task.out / FIGURES).exists():
        return
    like, most = task.optional_input("like"), task.config["examples"]
    source = open_source(task)
    verdicts = _gold(source) if like is None else _verdicts(source, like, most)
    found = [(text[:READ_CHARACTERS], kept) for text, kept in islice(verdicts, most)]
    task.progress(0, len(found), "documents")
    classifier, figures = train([text for text, _ in found], [kept for _, kept in found], task.config["seed"])
    publish_file(task.out / MODEL, classifier.save)
    publish_json(task.out / FIGURES, {**figures, "learnt_from": "gold" if like is None else "arm"})
    task.progress(len(found), len(found), "documents")


def seal(task: Task) -> dict[str, Any]:
    """documents learnt from, kept among them, held_out, and on the latter f1 (of "keep") and auc."""
    Classifier.load(task.out)
    figures: dict[str, Any] = json.loads((task.out / FIGURES).read_text())
    return figures


def _gold(source: Source) -> Iterator[tuple[str, bool]]:
    for document in documents(source):
        if document.gold_drop is not None:
            yield document.text, not document.gold_drop


def _verdicts(source: Source, arm: Path, number: int) -> Iterator[tuple[str, bool]]:
    """About `number` documents, the first ones of blocks evenly spaced, and whether the arm has them."""
    import pyarrow.parquet as pq

    blocks = [block for block in source.blocks if block_path(arm, block.index).exists()]
    parts = max(1, min(BLOCKS, len(blocks), number))
    for block in (blocks[len(blocks) * part // parts] for part in range(parts) if blocks):
        kept = set(pq.read_table(block_path(arm, block.index), columns=["id"])["id"].to_pylist())
        with closing(source.read(block)) as read:  # type: ignore[type-var]
            for document in islice(read, -(-number // parts)):
                yield document.text, document.id in kept
