"""The pilot: what is drawn from a corpus and at what cost, the threshold it sets, and how far that can be trusted."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prox_hpc.cluster.worker import manifest
from prox_hpc.config import Corpus
from prox_hpc.corpus.files import plan_files
from prox_hpc.corpus.read import Document, Source, UnreadableBlock
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_json
from prox_hpc.refine import pilot
from prox_hpc.refine.doc import DocStage
from prox_hpc.refine.settings import Settings
from prox_hpc.refine.tokens import load
from prox_hpc.task import Step, Task

Publish = Callable[..., str]
SERVE = {"device": "cpu", "dtype": "float32", "max_total_tokens": 8192, "requests_in_flight": 8}
BODY = "The quick brown fox jumps over the lazy dog."


def corpus(folder: Path, name: str, *rows: int, **settings: Any) -> Source:
    """Files of so many rows each, NAME as suffix (jsonl, parquet); the id of a document is `file-row`."""
    folder.mkdir(exist_ok=True)
    for file, count in enumerate(rows):
        records = [{"id": f"{file}-{row}", "text": f"{BODY} {row}"} for row in range(count)]
        path = folder / f"{file:03d}.{name}"
        if name == "parquet":
            pq.write_table(pa.Table.from_pylist(records), path, row_group_size=100)
        else:
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return Source.of_files(plan_files(Corpus(name="pages", kind="files", path=str(folder), **settings)))


def drawn(source: Source, number: int, seed: int = 0, sizes: list[float] | None = None) -> list[str]:
    """Ids of the drawn documents."""
    sizes = sizes or [(block.stop or 1) - block.start for block in source.blocks]
    return [one.id for _, found in pilot.draw(source, sizes, number, seed) for one in found or []]


def of_file(ids: list[str]) -> Counter[int]:
    return Counter(int(identity.split("-")[0]) for identity in ids)


def row(identity: str) -> int:
    return int(identity.split("-")[1])


def test_as_many_as_asked_none_twice_and_the_same_again(tmp_path: Path) -> None:
    source = corpus(tmp_path / "c", "parquet", 1000, 1000, 1000)
    ids = drawn(source, 250)
    assert len(ids) == len(set(ids)) == 250
    assert drawn(source, 250) == ids
    assert drawn(source, 250, seed=1) != ids


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_corpus_smaller_than_the_sample_is_drawn_whole(tmp_path: Path, kind: str) -> None:
    source = corpus(tmp_path / "c", kind, 60, 0, 40)
    assert set(drawn(source, 2000)) == {f"0-{i}" for i in range(60)} | {f"2-{i}" for i in range(40)}


def test_blocks_give_documents_by_their_size_over_the_whole_corpus(tmp_path: Path) -> None:
    source = corpus(tmp_path / "c", "parquet", 4000, 1000, 3000, 2000, block_documents=500)
    assert set(of_file(drawn(source, 400)).values()) == {160, 40, 120, 80}
    ids = drawn(source, 1000)
    assert {file: count / 100 for file, count in of_file(ids).items()} == pytest.approx(
        {0: 4, 1: 1, 2: 3, 3: 2}, abs=0.3
    )
    # all parts of a file, not its first blocks
    assert np.histogram([row(i) for i in ids if i.startswith("0-")], 8, (0, 4000))[0].min() >= 30


def test_every_document_has_the_same_chance(tmp_path: Path) -> None:
    source = corpus(tmp_path / "c", "parquet", 700, 30, 270, block_documents=300)
    times: Counter[str] = Counter()
    for seed in range(400):
        times.update(drawn(source, 100, seed))
    assert times.total() == 40_000
    # of 1,000 documents each is expected 40 times; binomially +- 6
    counts = np.array([times[f"{file}-{i}"] for file, n in enumerate((700, 30, 270)) for i in range(n)])
    assert counts[700:730].mean() == pytest.approx(40, abs=8)
    assert counts[:700].mean() == pytest.approx(40, abs=1.5)
    assert counts.min() > 10


def test_few_of_many_blocks_are_looked_into_and_any_may_be(tmp_path: Path) -> None:
    source = corpus(tmp_path / "c", "parquet", *[50] * 40)
    looked = [set(of_file(drawn(source, 100, seed))) for seed in range(60)]
    assert {len(blocks) for blocks in looked} == {100 // pilot.PER_BLOCK}
    assert set.union(*looked) == set(range(40))
    few = corpus(tmp_path / "few", "parquet", 200, 50, 350, 250, 150)
    assert of_file(drawn(few, 100)) == {0: 20, 1: 5, 2: 35, 3: 25, 4: 15}


def test_little_is_read(tmp_path: Path) -> None:
    """Of Parquet a range of rows somewhere in the block, of JSONL the records at its beginning."""
    for kind in ("parquet", "jsonl"):
        places = []
        for seed in range(20):
            rows = [row(i) for i in drawn(corpus(tmp_path / kind, kind, 5000, block_documents=5000), 20, seed)]
            assert max(rows) - min(rows) < pilot.READ_PER_DOCUMENT * 20
            places.append(min(rows))
        assert (max(places) > 4000) == (kind == "parquet")
        assert kind == "parquet" or max(places) < 200


def test_what_is_not_read_may_be_broken(tmp_path: Path) -> None:
    source = corpus(tmp_path / "c", "jsonl", 5000)
    path = Path(source.blocks[0].path)
    lines = path.read_bytes().splitlines(keepends=True)
    for place in (3, *range(4000, 5000)):
        lines[place] = b"#" * (len(lines[place]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    assert len(drawn(source, 100)) == 100
    assert source.failed == {"invalid JSON": 1}  # of the records that were read


def test_short_files_are_made_up_for_by_others(tmp_path: Path) -> None:
    source = corpus(tmp_path / "c", "jsonl", *[4] * 200)
    ids = drawn(source, 100, sizes=[1.0] * 200)
    assert len(ids) >= 100  # of 5 files in the first round, 20 more in the next ...
    assert len(of_file(ids)) < 60
    assert max(of_file(ids)) > 150


def test_an_unreadable_block_is_passed_over_where_the_corpus_allows_it(tmp_path: Path) -> None:
    for allowed in (0, 1):
        source = corpus(tmp_path / "c", "jsonl", 50, 50, 50, allow_failed_blocks=allowed)
        Path(source.blocks[1].path).unlink()
        if not allowed:
            with pytest.raises(UnreadableBlock, match=r"001\.jsonl"):
                drawn(source, 120, sizes=[1.0] * 3)
            continue
        found = [(block.index, documents) for block, documents in pilot.draw(source, [1.0] * 3, 120, 0)]
        assert [documents is None for _, documents in sorted(found, key=lambda pair: pair[0])] == [False, True, False]


@pytest.mark.parametrize(("share", "threshold"), [(0.3, 7.0), (0.01, 9.0), (0.99, 0.0), (0.5, 5.0)])
def test_the_best_share_reaches_the_threshold(share: float, threshold: float) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(10.0))
    assert pilot.threshold_at(scores, share) == threshold
    assert pilot.threshold_at(np.zeros(5), share) == 0.0


def test_the_threshold_of_a_step(tmp_path: Path) -> None:
    publish_json(tmp_path / pilot.FILE, {"threshold": -1.25})
    assert pilot.threshold_of({"refiner": {"doc_threshold": 0.5}}, None) == 0.5
    assert pilot.threshold_of({"refiner": {}}, None) == 0.0
    assert pilot.threshold_of({"refiner": {"doc_threshold": None, "doc_retention": 0.3}}, tmp_path) == -1.25
    assert pilot.threshold_of({"arm": {"doc_threshold": None, "doc_retention": 0.3}}, tmp_path) == -1.25
    assert pilot.threshold_of({"arm": {"doc_threshold": 2.0}}, tmp_path) == 2.0
    with pytest.raises(UserError, match=r"doc_retention=0\.3: the step has no pilot"):
        pilot.threshold_of({"arm": {"doc_threshold": None, "doc_retention": 0.3}}, None)


def pilot_task(store: Path, inputs: dict[str, str] | None = None, model: str = "", **config: Any) -> Task:
    refiner = {"prompt": "tags", "doc_answers": ["keep_doc()", "drop_doc()"], "max_doc_tokens": 300}
    refiner |= {"doc_model": model, "doc_retention": 0.3, "pilot_documents": 100}
    config = {"refiner": refiner, "doc_stage": True, "chunk_stage": False, "seed": 0, **config}
    runtime = {"serve": SERVE, "max_quarantined": 3}
    return Task(Step("pilot", "pages-tiny", config, inputs or {}, runtime=runtime), 0, store)


def figures(store: Path, scores: np.ndarray, blocks: np.ndarray, blank: int = 0) -> dict[str, Any]:
    """What a pilot with these published scores finds."""
    task = pilot_task(store)
    note = {"blank": blank, "failures": {}, "quarantined": [], "unreadable_blocks": [], "parameters": {}}
    rows = [
        {"id": str(i), "block": int(block), "score": float(score), "tokens": 10, "cut": False}
        for i, (score, block) in enumerate(zip(scores, blocks, strict=True))
    ]
    pilot._publish_scores(task.out / pilot.SCORES, rows, note | {"server_version": "none", "seconds": 1.0})
    pilot.run(task)
    return pilot.seal(task)


def test_the_interval_holds_the_share_of_the_whole_corpus_and_the_true_threshold(tmp_path: Path) -> None:
    corpus = np.random.default_rng(0).normal(size=200_000)
    true = pilot.threshold_at(corpus, 0.3)
    share = threshold = 0
    for trial in range(200):
        scores = np.random.default_rng(1 + trial).choice(corpus, 500, replace=False)
        found = figures(tmp_path / str(trial), scores, np.arange(500) // 20)
        share += found["interval"][0] <= (corpus >= found["threshold"]).mean() <= found["interval"][1]
        threshold += found["threshold_interval"][0] <= true <= found["threshold_interval"][1]
        assert found["standard_error"] == pytest.approx(math.sqrt(0.3 * 0.7 / 500))
        assert found["interval"] == pytest.approx([0.3 - 1.96 * found["standard_error"], 0.3402], abs=1e-4)
    # 190 of 200 are expected; fewer than 180 or all of them would be a wrong width
    assert 180 <= share < 200
    assert 180 <= threshold < 200


def test_blocks_that_differ_show_in_the_error(tmp_path: Path) -> None:
    blocks = np.arange(2000) // 20
    scores = np.random.default_rng(0).normal(size=2000)
    alike = figures(tmp_path / "alike", scores, blocks)
    assert alike["standard_error_of_blocks"] == pytest.approx(alike["standard_error"], rel=0.25)
    # half of the blocks hold only good documents: twenty of a block say no more than one
    apart = figures(tmp_path / "apart", np.where(blocks % 2, 5.0, -5.0) + scores / 100, blocks)
    assert apart["standard_error_of_blocks"] > 3 * apart["standard_error"]
    one = figures(tmp_path / "one", scores, np.zeros(2000))
    assert one["standard_error_of_blocks"] is None


def test_blank_documents_and_ties_are_told(tmp_path: Path) -> None:
    found = figures(tmp_path, np.repeat([1.0, 0.0], [5, 95]), np.zeros(100), blank=100)
    assert (found["threshold"], found["retention"], found["retained"]) == (0.0, 0.3, 1.0)
    assert found["retained_of_all"] == 1.0
    assert found["documents"] == {"scored": 100, "blank": 100, "cut": 0, "quarantined": 0, "failed": 0}
    found = figures(tmp_path / "fine", np.arange(100.0), np.zeros(100), blank=100)
    assert (found["retained"], found["retained_of_all"]) == (0.3, 0.65)


def test_nothing_to_score_is_told(store: Path, publish_corpus: Publish, tiny_refiner: Path) -> None:
    blank = publish_corpus([Document(str(i), " \n", {}) for i in range(5)])
    with pytest.raises(UserError, match=r"no document of the pilot sample has text \(5 blank"):
        pilot.run(pilot_task(store, {"corpus": blank}, str(tiny_refiner)))


@pytest.fixture(scope="module")
def piloted(tiny_refiner: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A pilot of 100 of 250 documents on a real server; five are blank, five longer than a prompt may be."""
    folder = tmp_path_factory.mktemp("pilot")
    (folder / "pages").mkdir()
    for file in range(5):
        texts = [f"{BODY} {file} {i} " + "Home | About | Contact " * (i % 7) for i in range(49)] + [" "]
        texts[0] = "word " * 5000
        lines = [json.dumps({"id": f"{file}-{i}", "text": text}) + "\n" for i, text in enumerate(texts)]
        (folder / "pages" / f"{file}.jsonl").write_text("".join(lines) + "{broken\n")
    source = plan_files(Corpus(name="pages", kind="files", path=str(folder / "pages")))
    task = pilot_task(folder / "store", model=str(tiny_refiner), source=source)
    pilot.run(task)
    publish_json(task.out / "artifact.json", manifest(task.step, task.out, pilot.seal(task)))
    return task


def test_scores_on_a_real_server(piloted: Task, tiny_refiner: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    rows = pq.read_table(piloted.out / pilot.SCORES).to_pylist()
    found = pilot.seal(piloted)
    documents = found["documents"]
    assert len(rows) == documents["scored"] == 100 - documents["blank"]
    assert {one["block"] for one in rows} == {0, 1, 2, 3, 4}
    assert found["blocks"] == 5
    assert 0 < documents["failed"] == sum(found["failures"].values()) == found["failures"]["invalid JSON"]
    assert found["tokens"] == {"doc_prefill": sum(one["tokens"] for one in rows), "doc_decode": 0}
    assert 0 < documents["cut"] == sum(one["cut"] for one in rows) < 10
    assert found["parameters"]["doc"]["total"] > 0

    scores = [one["score"] for one in rows]
    assert found["threshold"] == sorted(scores)[-round(0.3 * len(scores))]
    assert found["retained"] == pytest.approx(0.3, abs=1 / len(scores))
    assert found["quantiles"]["0.5"] == pytest.approx(np.median(scores))

    # the scores are the model's: log p(keep) - log p(drop) at the prompt's last position
    model = load(str(tiny_refiner))
    stage = DocStage.of(model, "tags", 300, 505, ("keep_doc()", "drop_doc()"))
    source = Source.of_files(piloted.config["source"])
    texts = {one.id: one.text for block in source.blocks for one in source.read(block)}
    reference = AutoModelForCausalLM.from_pretrained(tiny_refiner, dtype=torch.float32).eval()
    for one in rows[::10]:
        (prompt,) = stage.prompts([texts[one["id"]]])
        with torch.no_grad():
            logits = reference(torch.tensor([prompt.ids])).logits[0, -1]
        assert one["score"] == pytest.approx(float(logits[stage.keep_id] - logits[stage.drop_id]), abs=2e-3)
        assert one["tokens"] == len(prompt.ids)


def test_a_published_pilot_is_left_alone(piloted: Task) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in piloted.out.iterdir()}
    (piloted.out / pilot.FILE).rename(piloted.out / "first.json")
    pilot.run(piloted)  # no server: the figures are made again from the published scores
    assert (piloted.out / pilot.FILE).read_bytes() == (piloted.out / "first.json").read_bytes()
    (piloted.out / "first.json").unlink()
    assert (piloted.out / pilot.SCORES).stat().st_mtime_ns == before[pilot.SCORES]


def test_a_refine_step_keeps_and_programs_by_the_pilot_s_threshold(piloted: Task) -> None:
    refiner = {"doc_threshold": None, "doc_retention": 0.3, "chunk_margin": 0.5}
    config = {"refiner": refiner, "doc_stage": True, "chunk_stage": True}
    step = Step("refine", "pages-tiny", config, {"pilot": piloted.step.address}, runtime={"serve": SERVE})
    settings = Settings.of(Task(step, 0, piloted.store))
    threshold = pilot.seal(piloted)["threshold"]
    assert settings.execution.threshold == threshold
    assert settings.wants_chunks(threshold - 0.49)
    assert not settings.wants_chunks(threshold - 0.51)
