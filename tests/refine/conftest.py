"""Steps run by hand on a small store; the tiny refiner is the serve room's."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.corpus.read import Document
from prox_hpc.corpus.write import block_path, publish_counts, write_block
from prox_hpc.programs.record import text_hash
from prox_hpc.publish import publish_json
from prox_hpc.refine.counts import Digest
from prox_hpc.task import Step

_SPEC = importlib.util.spec_from_file_location("serve_conftest", Path(__file__).parents[1] / "serve" / "conftest.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_SERVE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_SERVE)
tiny_refiner = _SERVE.tiny_refiner


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def publish_corpus(store: Path) -> Any:
    """publish_corpus(blocks of documents) -> address of a corpus artifact with gold."""

    def publish(*blocks: list[Document]) -> str:
        digest = Digest()
        for block in blocks:
            for document in block:
                digest.add(document.id, text_hash(document.text))
        step = Step("generate", "web", {"documents": str(digest)})
        out = store / "artifacts" / step.address
        for index, documents in enumerate(blocks):
            publish_counts(out, index, write_block(block_path(out, index), documents, gold=True))
        publish_json(out / "artifact.json", {"summary": {}})
        return step.address

    return publish
