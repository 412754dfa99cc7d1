r"""Coverage-guided fuzzing of the program language with atheris, on the promises that `fuzz_programs.py` checks.

    pip install atheris        # not among this project's dependencies
    python tools/fuzz_atheris.py --seconds 300

Random text hardly ever gets past the first parenthesis; here an input that reaches new code is kept and changed
further. The cases of `--found` (the tests' folder of found cases) are the seeds. An input that breaks a promise is made
smaller and written there, and so is, at the end, one case for each new behaviour that was reached: a combination of
status, reason and outcomes in both stages, cut off or not. `tests/programs/test_found_cases.py` runs them ever after.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("error: atheris is not installed, and is not among this project's dependencies: pip install atheris")

# Coverage of the language itself is wanted, not of the checks.
with atheris.instrument_imports(include=["prox_hpc.programs"]):
    from fuzz_programs import (
        BUILT_IN,
        FOUND,
        TEXTS,
        Case,
        check_against_ast,
        check_case,
        fails_as,
        load_case,
        minimise,
        save_case,
    )

    from prox_hpc.programs import execute, parse
    from prox_hpc.programs.language import STAGES

MOST_CASES = 150
"""Cases in the folder; they run with every test suite."""

MOST_CHARACTERS = 400
DICTIONARY = (
    *("remove_lines(", "normalize(", "keep_chunk()", "untouch_doc()", "keep_doc()", "drop_doc()", "remove_lines(0,0)"),
    *("line_start=", "line_end=", "start=", "end=", "source_str=", "target_str=", "```", "```python"),
    *(r"\N{BULLET}", r"\u00e9", r"\x41", r"\ud800"),
)


def to_bytes(case: Case) -> bytes:
    """A case as the fuzzer sees it: first line, text, a byte that UTF-8 never holds, program."""
    text, program = (part.encode("utf-8", "surrogatepass") for part in (case.text, case.program))
    return bytes([case.first_line % 256]) + text + b"\xff" + program


def from_bytes(data: bytes) -> Case:
    """The case that the fuzzer's bytes stand for; any bytes do, and what is not UTF-8 becomes lone surrogates."""
    text, _, program = data[1:].partition(b"\xff")
    return Case(_decoded(program), _decoded(text), data[0] % 8 if data else 0)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def behaviour(case: Case) -> str:
    """What the case shows, without its particulars: status, reason and distinct outcomes, in all ways to run it."""
    shown: list[object] = []
    for stage in STAGES:
        for truncated in (False, True):
            program = parse(case.program, stage, truncated=truncated)
            result = execute(program, case.text.split("\n"), first_line=case.first_line)
            outcomes = {(type(done.op).__name__, done.outcome, done.reason) for done in result.outcomes}
            shown.append((result.status, program.reason, sorted(outcomes, key=str)))
    return str(shown)


def behaves_like(case: Case) -> Callable[[Case], bool]:
    wanted = behaviour(case)
    return lambda other: behaviour(other) == wanted


def fuzz(corpus: Path, arguments: Sequence[str]) -> None:
    """Let libFuzzer run on `corpus`; never returns."""

    def try_one(data: bytes) -> None:
        check_case(from_bytes(data))

    atheris.Setup([sys.argv[0], *arguments, str(corpus)], try_one)
    atheris.Fuzz()


def cases_in(folder: Path) -> Iterator[Case]:
    return (load_case(path) for path in sorted(folder.glob("*.json")))


def keep_behaviours(inputs: Iterator[Case], folder: Path) -> int:
    """Write down the smallest case of each behaviour that the folder does not show yet, while there is room."""
    shown = {behaviour(case) for case in cases_in(folder)}
    room = MOST_CASES - len(list(folder.glob("*.json")))
    smallest: dict[str, Case] = {}
    for case in inputs:
        key = behaviour(case)
        best = smallest.get(key)
        if key not in shown and (best is None or len(case.program + case.text) < len(best.program + best.text)):
            smallest[key] = case
    new = sorted(smallest.values(), key=lambda case: len(case.program + case.text))
    kept = [case for case in new if len(case.program + case.text) <= MOST_CHARACTERS][: max(0, room)]
    for case in kept:
        save_case(folder, minimise(case, behaves_like(case)), "behaviour reached by fuzzing")
    return len(kept)


def broken_promise(case: Case) -> str | None:
    try:
        check_case(case)
        check_against_ast(case)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=FOUND, help="folder of cases (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)  # set for the process that fuzzes
    options, rest = parser.parse_known_args(arguments)
    if options.corpus:
        fuzz(options.corpus, rest)
    with tempfile.TemporaryDirectory() as scratch:
        corpus, crashes = Path(scratch) / "corpus", Path(scratch) / "crashes"
        corpus.mkdir()
        crashes.mkdir()
        built_in = [Case(program, text) for program in BUILT_IN for text in TEXTS[:3]]
        for number, case in enumerate([*cases_in(options.found), *built_in]):
            (corpus / f"seed-{number}").write_bytes(to_bytes(case))
        dictionary = Path(scratch) / "dictionary"
        dictionary.write_text("".join(f'"{word.replace(chr(92), chr(92) * 2)}"\n' for word in DICTIONARY))
        command = [sys.executable, __file__, "--corpus", str(corpus), f"-max_total_time={options.seconds}"]
        command += [
            f"-seed={options.seed}",
            f"-dict={dictionary}",
            f"-artifact_prefix={crashes}/",
            "-max_len=600",
            "-len_control=10",
        ]
        command += ["-timeout=5", "-print_final_stats=1"]
        done = subprocess.run(command, stdout=sys.stderr)
        failures = []
        for path in crashes.iterdir():
            case = from_bytes(path.read_bytes())
            why = broken_promise(case) or f"libFuzzer: {path.name.split('-')[0]}"
            saved = save_case(options.found, minimise(case, fails_as(why, oracle=True)), why)
            failures.append({"why": why, "file": str(saved)})
        inputs = [from_bytes(path.read_bytes()) for path in sorted(corpus.iterdir())]
        kept = keep_behaviours(iter(inputs), options.found)
    summary = {"inputs": len(inputs), "kept": kept, "failures": failures, "libfuzzer_exit": done.returncode}
    print(json.dumps(summary, indent=1))
    return 1 if failures or done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
