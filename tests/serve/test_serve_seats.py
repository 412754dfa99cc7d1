"""Which GPU, cores and memory each server gets."""

from pathlib import Path

import pytest

from prox_hpc.config import Serve
from prox_hpc.errors import UserError
from prox_hpc.serve.seats import Seat, seats, visible_gpus
from prox_hpc.serve.server import command


def test_every_model_has_its_replicas_on_every_gpu_and_all_share_memory_and_cores() -> None:
    serve = Serve(device="cuda", replicas=2, mem_fraction=0.8)
    found = seats(["doc", "chunk"], serve, ["3", "5"], range(16))
    assert [(seat.gpu, seat.model) for seat in found] == [
        *[("3", "doc"), ("3", "chunk")] * 2,
        *[("5", "doc"), ("5", "chunk")] * 2,
    ]
    assert {seat.memory for seat in found} == {0.2}
    assert found[0].cores == {0, 1}
    assert sorted(core for seat in found for core in seat.cores or ()) == list(range(16))


def test_cores_are_shared_out_whole_or_not_at_all() -> None:
    serve = Serve(replicas=3)
    assert [seat.cores for seat in seats(["m"], serve, [None], [2, 3, 7, 8])] == [{2}, {3}, {7, 8}]
    assert [seat.cores for seat in seats(["m"], serve, [None], [2, 3])] == [None] * 3
    assert {seat.cores for seat in seats(["m"], Serve(replicas=3, pin_cores=False), [None], range(9))} == {None}


def test_memory_is_sglangs_to_choose_for_one_server_and_split_for_several() -> None:
    alone = seats(["m"], Serve(device="cuda"), ["0"], [0])
    assert alone == [Seat("m", "0", None, frozenset([0]))]
    assert [seat.memory for seat in seats(["m"], Serve(device="cuda", replicas=2), ["0"], [0])] == [0.425] * 2
    assert [seat.memory for seat in seats(["m"], Serve(replicas=2), [None], [0])] == [None] * 2


def test_gpus_are_those_the_task_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5ab")
    assert visible_gpus(Serve(device="cuda")) == ["3", "GPU-5ab"]
    assert visible_gpus(Serve(device="cpu")) == [None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="no GPU here"):
        visible_gpus(Serve(device="cuda"))


def test_gpus_are_listed_where_nothing_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = tmp_path / "nvidia-smi"
    listing.write_text('#!/bin/sh\necho "GPU 0: NVIDIA (UUID: a)"; echo "  MIG 1g"; echo "GPU 1: NVIDIA (UUID: b)"\n')
    listing.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert visible_gpus(Serve(device="cuda")) == ["0", "1"]
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="no GPU here"):
        visible_gpus(Serve(device="cuda"))


def flags(**settings: object) -> list[str]:
    return command("m", Serve(**settings), 1, Path("key"))  # type: ignore[arg-type]


def test_settings_become_the_servers_flags() -> None:
    plain = flags()
    assert "--disable-radix-cache" in plain
    assert plain[plain.index("--max-running-requests") + 1] == "256"
    assert not {"--chunked-prefill-size", "--quantization"} & set(plain)
    chosen = flags(radix_cache=True, chunked_prefill_tokens=16384, quantization="fp8", requests_in_flight=24)
    assert "--disable-radix-cache" not in chosen
    assert chosen[chosen.index("--max-running-requests") + 1] == "24"
    assert chosen[chosen.index("--chunked-prefill-size") + 1] == "16384"
    assert chosen[chosen.index("--quantization") + 1] == "fp8"
    assert flags(arguments=["--tp", "2"])[-2:] == ["--tp", "2"]
