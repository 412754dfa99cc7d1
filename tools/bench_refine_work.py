"""What `bench_refine.py` measures on: the model, the documents, and the token ids of every request about them.

The model is a trained refiner grown to the wanted size without changing what it says: its weights are put into the
corner of a larger model whose other weights reach nothing (`grow`). So programs end by themselves as a trained
refiner's do, while every forward pass costs what one of that size costs; random weights would ramble to the token limit
or stop at once, and training 30M parameters takes hours on two cores.

The token ids are made here, independently of the engine under test, from the same prompt templates, so that the peers
get what the engine should send; the engine's own token counts must agree (`Work.tokens` against its programs file).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_programs import documents as filled
from bench_programs import real_lines

from prox_hpc.config import Corpus
from prox_hpc.corpus.files import plan_files
from prox_hpc.programs import chunk_grammar, split_chunks
from prox_hpc.refine import tokens
from prox_hpc.serve.prompt import render_chunk, render_doc, template, tokenizable

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

CONTEXT = 4096
"""Positions of the grown model: room for the longest document of the `score` part, and for 2,000 generated tokens."""
BPE_VOCABULARY = 32_768
_LLAMA3_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Size:
    """Shape of the grown model; heads have the trained one's dimension."""

    hidden: int = 512
    layers: int = 9
    intermediate: int = 1376


SIZES = {"30m": Size(), "300m": Size(1280, 24, 4096), "trained": None}
"""300m: about the body of ProX's 0.3B refiner (272M without embeddings)."""


@dataclass(frozen=True)
class Limits:
    """The refiner's settings that decide what is asked."""

    prompt: str = "tags"
    max_doc_tokens: int = 900
    max_chunk_tokens: int = 240
    max_new_tokens: int = 160
    doc_new_tokens: int = 16
    """For those who generate the doc answer."""


@dataclass(frozen=True)
class Request:
    """All about one document: token ids of its doc prompt and of its chunks' prompts."""

    identity: str
    doc: list[int]
    chunks: list[list[int]]


@dataclass
class Work:
    """The requests of a corpus. kept: whether each document's verdict lets it go on to the chunk stage."""

    requests: list[Request]
    keep_id: int
    drop_id: int
    eos_id: int
    max_new_tokens: int
    grammar: str
    kept: list[bool] = field(default_factory=list)

    def tokens(self, stages: str) -> dict[str, int]:
        """Prompt tokens of the stages `doc`, `chunk` (of all documents) or `both` (chunks of kept ones)."""
        found = {}
        if stages in ("doc", "both"):
            found["doc_prefill"] = sum(len(one.doc) for one in self.requests)
        if stages in ("chunk", "both"):
            found["chunk_prefill"] = sum(len(ids) for ids in self.chunks(stages))
        return found

    def chunks(self, stages: str) -> list[list[int]]:
        """Prompts of the chunk stage when it runs alone (`chunk`) or after the doc stage (`both`)."""
        wanted = [True] * len(self.requests) if stages == "chunk" else self.kept
        return [ids for one, keep in zip(self.requests, wanted, strict=True) if keep for ids in one.chunks]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(path: Path) -> Work:
        value = json.loads(path.read_text())
        return Work(**value | {"requests": [Request(**one) for one in value["requests"]]})


# --- the model --------------------------------------------------------------------------------------------------------


def grow(trained: Path, size: Size | None, folder: Path) -> Path:
    """A model of that size which says exactly what `trained` says (a Llama), with its tokenizer; made once."""
    if size is None:
        return trained
    made = folder / f"{trained.parent.name}-{size.hidden}-{size.layers}-{size.intermediate}"
    if (made / "config.json").exists():
        return made
    from transformers import AutoTokenizer, LlamaForCausalLM

    small: Any = LlamaForCausalLM.from_pretrained(trained)
    large = _grown(small, size)
    AutoTokenizer.from_pretrained(trained).save_pretrained(made)
    large.save_pretrained(made)
    return made


def _grown(small: Any, size: Size) -> LlamaForCausalLM:
    """Everything added either reads or writes only zeros; a norm over more (zero) dimensions is scaled back."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    old = small.config
    dimension, heads = old.hidden_size, size.hidden // old.head_dim
    config: dict[str, Any] = old.to_dict() | {
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "intermediate_size": size.intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": old.rms_norm_eps * dimension / size.hidden,
        "dtype": "float32",
    }
    torch.manual_seed(0)
    large: Any = LlamaForCausalLM(LlamaConfig(**config)).float()
    weights, given = large.state_dict(), small.float().state_dict()
    with torch.no_grad():
        for name, weight in weights.items():
            if name.endswith(("o_proj.weight", "down_proj.weight", "embed_tokens.weight")):
                weight.zero_()
            if name in given:
                own = given[name] * ((dimension / size.hidden) ** 0.5 if name.endswith("norm.weight") else 1)
                weight[tuple(slice(0, n) for n in own.shape)] = own
    return large  # type: ignore[no-any-return]


def bpe_model(pages: Path, folder: Path) -> Path:
    """A model folder without weights for the echo server: a Llama-3-like BPE of 32,768 tokens trained on the pages."""
    made = folder / f"bpe-{BPE_VOCABULARY}-{pages.name.split('.')[0]}"
    if (made / "config.json").exists():
        return made
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    tokenizer = _train_bpe("\n".join(line for line, _ in lines) for lines in filled(real_lines(pages)))
    names: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(made)
    shape: dict[str, Any] = {
        "hidden_size": 1280,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    config = LlamaConfig(vocab_size=BPE_VOCABULARY, max_position_embeddings=CONTEXT, num_key_value_heads=1, **shape)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(made)
    return made


def _train_bpe(texts: Iterable[str]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    pieces = pre_tokenizers.Split(Regex(_LLAMA3_PIECES), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, level])  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return tokenizer


# --- documents --------------------------------------------------------------------------------------------------------


def generated_texts() -> Iterator[str]:
    """Pages of the project's generated web, of sites that no refiner was trained on, without end."""
    from prox_hpc.corpus.web import make_page

    return (make_page("test", 2611, 0, row).text for row in count())


def page_texts(pages: Path) -> Iterator[str]:
    """Documents of about 4 kB from a file of pages, repeated without end."""
    while True:
        yield from ("\n".join(line for line, _ in lines) for lines in filled(real_lines(pages)))


def fitting(texts: Iterable[str], model: tokens.Model, limits: Limits) -> Iterator[str]:
    """Those that the doc stage is shown whole: what a peer does with longer ones is not compared."""
    for text in texts:
        if len(doc_ids(model, limits, [text])[0]) <= limits.max_doc_tokens:
            yield text


def with_verdicts(texts: Iterable[str], judges: Sequence[tuple[Path, Limits]], kept: float) -> Iterator[str]:
    """Documents of which the refiners keep the share `kept`: those of either kind as they come, the surplus left out.

    A refiner trained on short documents drops most of the longer ones, which would leave little for the chunk stage.
    Judged by the small models themselves, which say what the grown ones say: 40 ms a document; all must agree.
    """
    verdicts = [_verdict(trained, limits) for trained, limits in judges]
    wanted = 0.0
    for text in texts:
        found = {verdict(text) for verdict in verdicts}
        if found == {wanted + kept > 0.5}:
            wanted += kept - found.pop()
            yield text


def _verdict(trained: Path, limits: Limits) -> Callable[[str], bool]:
    """Whether a refiner keeps a document."""
    import torch
    from transformers import LlamaForCausalLM

    model = tokens.load(str(trained))
    judge: Any = LlamaForCausalLM.from_pretrained(trained).float().eval()
    keep, drop = (ids[0] for ids in model.encode(["keep_doc()", "drop_doc()"]))

    def verdict(text: str) -> bool:
        with torch.inference_mode():
            logits = judge(torch.tensor(doc_ids(model, limits, [text]))).logits[0, -1]
        return bool(logits[keep] >= logits[drop])

    return verdict


def write_corpus(folder: Path, texts: Iterable[str], documents: int, block: int) -> dict[str, Any]:
    """Documents as one Parquet file with `id`, `text`, `url`; returns the `source` of a refine step over it.

    What is there already is taken as it is, so the folder's name must tell all that decides it.
    """
    if not (folder / "pages.parquet").exists():
        _write_corpus(folder, texts, documents, block)
    return plan_files(Corpus(name="bench", kind="files", path=str(folder / "pages.parquet"), block_documents=block))


def _write_corpus(folder: Path, texts: Iterable[str], documents: int, block: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("url", pa.string())])
    rows = ({"id": f"d{n:07d}", "text": t, "url": f"https://{n % 997}.example/{n}"} for n, t in enumerate(texts))
    wanted = islice(rows, documents)
    draft = folder.with_name(f"{folder.name}.draft")
    with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        while group := list(islice(wanted, min(block, 1000))):
            writer.write_table(pa.Table.from_pylist(group, schema))
    draft.rename(folder / "pages.parquet")


def read_corpus(folder: Path) -> list[tuple[str, str]]:
    """(id, text) of every document."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "pages.parquet")
    return list(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))


# --- token ids --------------------------------------------------------------------------------------------------------


def doc_ids(model: tokens.Model, limits: Limits, texts: Iterable[str]) -> list[list[int]]:
    """Doc prompts of whole documents."""
    rendered = [render_doc(limits.prompt, tokenizable(text)) for text in texts]
    return model.encode(rendered, template(limits.prompt).add_special_tokens)


def make_work(model: tokens.Model, limits: Limits, pages: list[tuple[str, str]]) -> Work:
    """All requests about these documents; of which are kept nothing is known yet."""
    special = template(limits.prompt).add_special_tokens
    keep, drop = model.encode(["keep_doc()", "drop_doc()"])
    requests = []
    docs = doc_ids(model, limits, (text for _, text in pages))
    for (identity, text), doc in zip(pages, docs, strict=True):
        chunks = split_chunks(text, lambda lines: list(map(len, model.encode(lines))), limits.max_chunk_tokens)
        rendered = [render_chunk(limits.prompt, chunk) for chunk in chunks if not chunk.oversized]
        requests.append(Request(identity, doc, model.encode(rendered, special)))
    grammar = chunk_grammar(max_string_chars=None)
    return Work(requests, keep[0], drop[0], model.eos_id, limits.max_new_tokens, grammar)
