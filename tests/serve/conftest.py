"""A tiny refiner with random weights."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_refiner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder: a Llama of 0.2M parameters, its context 512, with a tokenizer of ours."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from prox_hpc.refiner.tokenizer import save, train

    folder = tmp_path_factory.mktemp("refiner") / "model"
    folder.mkdir()
    save(train(["The quick brown fox jumps over the lazy dog. Home | About | Contact"] * 9, 1024), folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 2, "vocab_size": 1024, "max_position_embeddings": 512}
    config = LlamaConfig(**shape, bos_token_id=0, eos_token_id=0, initializer_range=0.3)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
