"""A real SGLang server: what it answers, what it gives away, and what it leaves behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from prox_hpc.config import Serve
from prox_hpc.errors import UserError
from prox_hpc.programs import chunk_grammar, doc_grammar, parse
from prox_hpc.serve.client import Client, Generating, Question, Refused, Scoring
from prox_hpc.serve.server import Server, ServerError, check_model

SERVE = Serve(device="cpu", dtype="float32", max_total_tokens=8192, requests_in_flight=8)
PROMPTS = [[5 + i * 37 % 900 for i in range(start, start + length)] for start, length in ((0, 3), (7, 40), (11, 300))]
KEEP, DROP = 17, 18


@pytest.fixture(scope="module")
def server(tiny_refiner: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(str(tiny_refiner), SERVE, tmp_path_factory.mktemp("server") / "server.log") as server:
        yield server


@pytest.fixture(scope="module")
def model(tiny_refiner: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(tiny_refiner).eval()


def ask(server: Server, question: Question, prompts: Sequence[Sequence[int]]) -> list[Any]:
    """The answers of one call, in the prompts' order."""

    async def call() -> dict[int, Any]:
        async with Client(server) as client:
            return {number: answer async for number, answer in client.ask(question, prompts)}

    answers = asyncio.run(call())
    return [answers[number] for number in range(len(prompts))]


def descendants(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def wait_gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those still running after up to 30 s."""
    return [process for process in psutil.wait_procs(processes, timeout=30)[1] if process.is_running()]


def test_scores_are_the_models_log_probabilities(server: Server, model: Any) -> None:
    import torch

    for ids, score in zip(PROMPTS, ask(server, Scoring(KEEP, DROP), PROMPTS), strict=True):
        with torch.no_grad():
            expected = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), -1)
        assert score.keep == pytest.approx(expected[KEEP].item(), abs=1e-4)
        assert score.drop == pytest.approx(expected[DROP].item(), abs=1e-4)
        # and threshold 0 is what greedy decoding between the two says
        sampling = {"temperature": 0, "max_new_tokens": 1, "logit_bias": {str(KEEP): 100, str(DROP): 100}}
        body = {"input_ids": ids, "sampling_params": sampling}
        answer = httpx.post(f"{server.url}/generate", json=body, headers=server.headers, timeout=60).json()
        assert answer["output_ids"] == [KEEP if score.value >= 0 else DROP]


def test_greedy_decoding_is_the_models(server: Server, model: Any) -> None:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(server.model)
    for ids, answer in zip(PROMPTS, ask(server, Generating(12, None, (0,)), PROMPTS), strict=True):
        prompt = torch.tensor([ids])
        output = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False)
        generated = output[0, len(ids) :].tolist()
        assert answer.truncated == (generated[-1] != 0)
        assert answer.tokens == len(generated)
        assert answer.text == tokenizer.decode(generated, skip_special_tokens=True)


def test_constrained_answers_are_programs(server: Server) -> None:
    """An untrained model can write nothing but programs, cut off by the token limit or whole."""
    for stage, grammar in (("chunk", chunk_grammar(max_string_chars=20)), ("doc", doc_grammar())):
        for answer in ask(server, Generating(60, grammar, (0,)), PROMPTS):
            program = parse(answer.text, stage, truncated=answer.truncated)  # type: ignore[arg-type]
            assert program.status == ("truncated" if answer.truncated else "ok"), answer


def test_a_refused_request_is_an_error_that_says_why(server: Server) -> None:
    for question in (Scoring(KEEP, DROP), Generating(4)):
        with pytest.raises(Refused, match="context length"):
            ask(server, question, [[5], [5] * 600])


def test_the_version_is_the_servers_own(server: Server) -> None:
    assert server.version() == "0.5.23"


def test_the_key_is_needed_and_stands_nowhere(server: Server) -> None:
    body = {"input_ids": [5], "sampling_params": {"max_new_tokens": 1}}
    assert httpx.post(f"{server.url}/generate", json=body).status_code == 401
    assert server.process is not None
    family = descendants(server.process.pid)
    assert len(family) >= 3  # the server, its scheduler, its detokenizer
    for process in family:
        command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert command_line
        assert server.key.encode() not in command_line
    assert server.log.stat().st_mode & 0o077 == 0
    assert "'api_key': '[key]'" in server.log.read_text()  # SGLang did print it
    for file in server.log.parent.iterdir():
        assert server.key not in file.read_text(), file


def test_requests_are_heard_from_this_machine_only(server: Server) -> None:
    assert server.process is not None
    addresses = {
        connection.laddr.ip
        for process in descendants(server.process.pid)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == server.port
    }
    assert addresses == {"127.0.0.1"}


def test_stop_leaves_no_process(server: Server) -> None:
    """Last of those that use the server."""
    assert server.process is not None
    family = descendants(server.process.pid)
    server.stop()
    assert not wait_gone(family)
    server.stop()  # twice does no harm


def test_the_server_dies_with_its_parent(tiny_refiner: Path, tmp_path: Path) -> None:
    """SIGKILL gives the parent no time to clean up."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from prox_hpc.serve.server import Server\n"
        f"with Server({str(tiny_refiner)!r}, dict(device='cpu', dtype='float32', max_total_tokens=4096),"
        f" Path({str(tmp_path / 'server.log')!r})) as server:\n"
        "    print(server.process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        line = parent.stdout.readline()
        assert line, (tmp_path / "server.log").read_text()[-2000:]
        family = descendants(int(line))
        assert len(family) >= 3
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    assert not wait_gone(family)


def start(tmp_path: Path, model: Path, program: str, **settings: Any) -> ServerError:
    """The error of a start with `python -c program` in the place of a Python that has sglang."""
    serve = replace(SERVE, command=[sys.executable, "-c", program], **settings)
    server = Server(str(model), serve, tmp_path / "server.log")
    with pytest.raises(ServerError) as caught:
        server.start()
    assert server.process is None
    return caught.value


def test_death_at_the_start_shows_the_servers_last_words_and_the_remedy(tiny_refiner: Path, tmp_path: Path) -> None:
    error = start(tmp_path, tiny_refiner, "print('loading'); print('RuntimeError: Not enough memory.'); exit(3)")
    assert "exit status 3" in str(error)
    assert "RuntimeError: Not enough memory." in str(error)
    assert "lower refiner.serve.mem_fraction" in str(error)
    error = start(tmp_path, tiny_refiner, "raise OSError(98, 'address already in use')")
    assert "another process took its port; launch again" in str(error)
    error = start(tmp_path, tiny_refiner, "import os; os.kill(os.getpid(), 9)")
    assert "SIGKILL" in str(error)
    assert [file.name for file in tmp_path.iterdir()] == ["server.log"]  # the key's file is gone


def test_a_server_that_never_comes_up_is_stopped(tiny_refiner: Path, tmp_path: Path) -> None:
    error = start(
        tmp_path, tiny_refiner, "import time; print('dawdling', flush=True); time.sleep(99)", start_timeout_s=2
    )
    assert "not ready after 2 s" in str(error)
    assert "dawdling" in str(error)


def test_python_without_sglang_is_named(tiny_refiner: Path, tmp_path: Path) -> None:
    serve = replace(SERVE, command=[sys.executable])  # sglang is in the side folder, which a command does not get
    with pytest.raises(ServerError, match=r"(?s)set refiner.serve.command.*No module named"):
        Server(str(tiny_refiner), serve, tmp_path / "server.log").start()


def test_a_port_in_use_is_the_users_to_change(tiny_refiner: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"refiner.serve.port={port}.*in use"):
            Server(str(tiny_refiner), replace(SERVE, port=port), tmp_path / "server.log").start()


def test_a_cpu_server_needs_a_bound_on_its_cache(tiny_refiner: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_total_tokens"):
        Server(str(tiny_refiner), replace(SERVE, max_total_tokens=None), tmp_path / "server.log").start()


def test_model_folders_are_looked_at_before_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(UserError, match="no such model folder"):
        check_model(str(folder))
    folder.mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        check_model(str(folder))
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no tokenizer"):
        check_model(str(folder))
    with pytest.raises(UserError, match="not a folder"):
        check_model(str(folder / "config.json"))
    (folder / "tokenizer.json").write_text("{}")
    check_model(str(folder))
    check_model("owner/name")  # a hub name is the hub's to judge
