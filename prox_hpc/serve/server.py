"""One SGLang server process: command, start, readiness, and an end that leaves nothing behind.

Nodes are shared, so the server binds 127.0.0.1 and wants a random key. SGLang takes a key on its command line, which
every user of the node can read, or in a `--config` file; we use the file (mode 0600, gone once the server is up).
SGLang also prints its whole configuration, so its output reaches the log through us, with the key blotted out. Where
sglang is installed is configuration (`serve.command`); on a CPU it lives in a side folder of this environment and
needs the two modules in `cpu_shim/`.
"""

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from prox_hpc.config import Serve
from prox_hpc.errors import UserError

CPU_SHIM = Path(__file__).parent / "cpu_shim"
HOST = "127.0.0.1"
LAST_LINES = 30
"""Lines of the server's log shown in an error."""
STOP_SECONDS = 10
"""SIGTERM drains what is in flight (6-10 s measured on a CPU); after this long the server is killed."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

# What the server's last lines may hold, in lower case, and what the user can do about it.
_REMEDIES = (
    (
        ("address already in use", "errno 98", "port is not available"),
        "another process took its port; launch again, or unset refiner.serve.port",
    ),
    (
        ("out of memory", "not enough memory", "bad_alloc", "can't allocate memory", "cannot allocate memory"),
        "memory ran out; lower refiner.serve.mem_fraction or refiner.serve.max_total_tokens, or ask for more memory",
    ),
    (
        ("no module named 'sglang'", "no module named sglang"),
        "sglang is not installed there; set refiner.serve.command to the Python that has it",
    ),
)


class ServerError(RuntimeError):
    """The server did not start, or died; the message holds the last lines of its log."""


class Server:
    """A running SGLang server: `with Server(model, serve, log) as server: ... server.url, server.key`.

    model: folder or hub name. serve: `prox_hpc.config.Serve` or its plain dict. log: file for the server's output.
    The process dies with the thread that started it, however that ends (PR_SET_PDEATHSIG), so start it from a thread
    that lives as long as the server is needed. UserError before the start for what the user can mend; ServerError
    when the start fails. gpu: the one device it sees (a CUDA_VISIBLE_DEVICES entry). cores: what it may run on.
    last_line: time (monotonic) of the newest line of its log.
    """

    def __init__(
        self,
        model: str,
        serve: Serve | Mapping[str, Any],
        log: Path,
        gpu: str | None = None,
        cores: Collection[int] | None = None,
    ):
        self.model = model
        self.serve = serve if isinstance(serve, Serve) else Serve(**serve)
        self.log = log
        self.gpu = gpu
        self.cores = cores
        self.last_line = time.monotonic()
        # hex: one key in 64 of `token_urlsafe` starts with a dash, which SGLang takes for an option
        self.key = secrets.token_hex(32)
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._family: set[Any] = set()
        self._reader: threading.Thread | None = None
        self._aborted = threading.Event()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it has generated a token."""
        check_model(self.model)
        check_serve(self.serve)
        self.port = choose_port(self.serve.port)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        secret = self.log.with_suffix(f".{os.getpid()}.yaml")
        try:
            with open(os.open(secret, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
                file.write(f'api-key: "{self.key}"\n')
            self._spawn(command(self.model, self.serve, self.port, secret))
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        finally:
            secret.unlink(missing_ok=True)

    def check(self) -> None:
        """ServerError when the process has ended."""
        if how := self.died():
            raise ServerError(self.describe(f"ended {how}"))

    def died(self) -> str | None:
        """How the process ended ("with exit status 1"), or None while it runs."""
        status = self.process.poll() if self.process else None
        return None if status is None else _how(status)

    def abort(self) -> None:
        """From another thread: end a `start` that is under way, with a ServerError, and a running server at once."""
        self._aborted.set()
        self._remember_family()
        process = self.process
        if process is not None:
            process.kill()

    def version(self) -> str:
        """The server's own version, as it says itself."""
        import httpx

        with httpx.Client(base_url=self.url, headers=self.headers, timeout=60, trust_env=False) as client:
            return str(client.get("/server_info").raise_for_status().json()["version"])

    def stop(self) -> None:
        """End the whole process tree: SIGTERM to the server, SIGKILL to whatever is left. May be called twice."""
        import psutil

        if self.process is None:
            return
        self._remember_family()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        _, left = psutil.wait_procs(self._family, timeout=1)
        for member in left:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=STOP_SECONDS)
        self.process.wait()
        self._join_reader()
        self.process = None

    def _spawn(self, arguments: list[str]) -> None:
        parent, cores = os.getpid(), self.cores

        def die_with_parent() -> None:  # runs in the child between fork and exec
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            if cores is not None:
                os.sched_setaffinity(0, cores)

        # A session of its own: Ctrl-C reaches us, and we end the server.
        self.process = subprocess.Popen(
            arguments,
            env=environment(self.model, self.serve, self.gpu),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self._reader = threading.Thread(target=self._copy_log, args=(self.process,), daemon=True)
        self._reader.start()

    def _copy_log(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with open(os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "w") as log:
            for raw in process.stdout:
                self.last_line = time.monotonic()
                line = raw.decode("utf-8", "replace").replace(self.key, "[key]")
                self._lines.append(line.rstrip())
                log.write(line)
                log.flush()

    def _wait_until_ready(self) -> None:
        """Poll its health until it answers, then have one token generated."""
        import httpx

        first = {"input_ids": [0], "sampling_params": {"max_new_tokens": 1, "temperature": 0}}
        deadline = time.monotonic() + self.serve.start_timeout_s
        # trust_env: a proxy in the environment is not the way to 127.0.0.1
        with httpx.Client(base_url=self.url, headers=self.headers, trust_env=False) as client:
            while (left := deadline - time.monotonic()) > 0:
                if self._aborted.is_set():
                    raise ServerError(f"the start of the SGLang server of {self.model} was called off")
                self.check()
                try:
                    if client.get("/health", timeout=5).status_code == 200:
                        client.post("/generate", json=first, timeout=left).raise_for_status()
                        self.check()  # it may be somebody else who answers on this port
                        self._remember_family()
                        return
                except httpx.TransportError:
                    pass  # not listening yet, or busy warming up: ask again until the deadline
                except httpx.HTTPStatusError as error:
                    raise ServerError(self.describe(f"refused its first request ({error})")) from error
                self._aborted.wait(0.2)
        raise ServerError(
            self.describe(f"was not ready after {self.serve.start_timeout_s} s (refiner.serve.start_timeout_s)")
        )

    def _remember_family(self) -> None:
        """Note the process and its descendants while they still hang together."""
        import psutil

        if self.process is None:
            return
        try:
            main = psutil.Process(self.process.pid)
            self._family |= {*main.children(recursive=True)}
        except psutil.NoSuchProcess:
            return

    def _join_reader(self) -> None:
        if self._reader is not None:
            self._reader.join(timeout=2)  # a stray descendant may hold the pipe open

    def describe(self, what: str) -> str:
        """An error's text: `what` happened to this server, what the user can do about it, and the log's last lines."""
        if self.died():
            self._join_reader()
        lines = list(self._lines)
        seen = "\n".join(lines).lower()
        remedy = next((remedy for words, remedy in _REMEDIES if any(word in seen for word in words)), None)
        return "\n".join(
            [
                f"the SGLang server of {self.model} {what}" + (f": {remedy}" if remedy else ""),
                f"last lines of {self.log}:",
                *(f"  {line}" for line in lines),
            ]
        )


def _how(status: int) -> str:
    if status >= 0:
        return f"with exit status {status}"
    hint = " (the kernel does that when memory runs out)" if -status == signal.SIGKILL else ""
    return f"by signal {signal.Signals(-status).name}{hint}"


def check_model(model: str) -> None:
    """UserError when `model` is a folder that cannot be served; hub names are left to the server.

    A name is a hub name when no such path exists and it looks like `owner/name`.
    """
    folder = Path(model)
    looks_like_hub = model.count("/") == 1 and not model.startswith((".", "/", "~"))
    if not folder.exists():
        if looks_like_hub:
            return
        raise UserError(f"{model}: no such model folder; give a folder with config.json, a tokenizer and weights")
    if not folder.is_dir():
        raise UserError(f"{model}: is not a folder; give the model's folder, not a file of it")
    if not (folder / "config.json").exists():
        raise UserError(f"{model}: has no config.json, so it is no model folder; give the folder that holds one")
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise UserError(f"{model}: has no tokenizer (tokenizer.json); copy the model's tokenizer files into it")


def check_serve(serve: Serve) -> None:
    """UserError for settings that cannot work."""
    if serve.device == "cpu" and serve.max_total_tokens is None:
        raise UserError("refiner.serve.max_total_tokens: set it on a CPU (e.g. 16384); SGLang would take all memory")
    if not serve.command and serve.device == "cpu" and not _side_folder().is_dir():
        raise UserError(
            f"{_side_folder()}: sglang is not installed there; run `make install`, or set refiner.serve.command"
        )


def choose_port(wanted: int | None) -> int:
    """`wanted` if it is free (UserError if not), or a free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does; TIME_WAIT does not matter
        try:
            probe.bind((HOST, wanted or 0))
        except OSError as error:
            raise UserError(
                f"refiner.serve.port={wanted}: {error.strerror}; choose another or leave it unset"
            ) from error
        return int(probe.getsockname()[1])


def command(model: str, serve: Serve, port: int, secret: Path) -> list[str]:
    """The command line of the server; the user's own arguments come last, so they win."""
    arguments = [*(serve.command or [sys.executable]), "-m", "sglang.launch_server", "--config", str(secret)]
    arguments += ["--model-path", model, "--host", HOST, "--port", str(port), "--device", serve.device]
    arguments += ["--dtype", serve.dtype, "--random-seed", "1"]
    arguments += ["--max-running-requests", str(serve.requests_in_flight or serve.max_in_flight)]
    if not serve.radix_cache:
        # Most prompts share only their first few tokens; the tree of prefixes is then work for each and no gain.
        arguments += ["--disable-radix-cache"]
    if serve.chunked_prefill_tokens is not None:
        # Prefill of a 0.3B model peaks at 1.6M tokens/s on an H100, so SGLang's usual 2k-8k tokens a step are over in
        # 1-5 ms and its scheduler sets the pace; 16k-64k keep the device busy (a chunk of -1: no bound).
        arguments += ["--chunked-prefill-size", str(serve.chunked_prefill_tokens)]
    if serve.quantization is not None:
        # fp8 doubles the peak (3.3M tokens/s of prefill at 0.3B); whether the programs stay the same is to be looked at
        arguments += ["--quantization", serve.quantization]
    if serve.max_total_tokens is not None:
        arguments += ["--max-total-tokens", str(serve.max_total_tokens)]
    if serve.mem_fraction is not None:
        arguments += ["--mem-fraction-static", str(serve.mem_fraction)]
    if serve.device == "cpu":
        arguments += ["--attention-backend", "torch_native", "--sampling-backend", "pytorch"]
        arguments += ["--sleep-on-idle"]  # an idle scheduler spins on a whole core otherwise; latency is the same
        if serve.mem_fraction is None:
            arguments += ["--mem-fraction-static", "0.1"]
    return arguments + list(serve.arguments)


def environment(model: str, serve: Serve, gpu: str | None = None) -> dict[str, str]:
    """The server's environment: ours, its one GPU, and on a CPU without a command of the user's, the CPU recipe."""
    env = dict(os.environ)
    if gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpu
    # SGLang asks itself a first question over HTTP, which a cluster's proxy would swallow.
    env["NO_PROXY"] = env["no_proxy"] = ",".join(filter(None, [env.get("NO_PROXY") or env.get("no_proxy"), HOST]))
    if Path(model).exists():
        env["HF_HUB_OFFLINE"] = "1"
    if serve.device == "cpu" and not serve.command:
        env["PYTHONPATH"] = os.pathsep.join([str(CPU_SHIM), str(_side_folder())])
        env["SGLANG_USE_CPU_ENGINE"] = "1"
        env["OMP_NUM_THREADS"] = "1"  # two threads on two shared cores collapse under contention
    return env


def _side_folder() -> Path:
    return Path(sys.prefix) / "sglang"
