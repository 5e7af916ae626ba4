"""``make fuzz``: lets atheris look for inputs on which a target fails, each target for ``FUZZ_SECONDS``.

``python -m tests.fuzz`` runs all targets, ``python -m tests.fuzz NAME`` one, ``python -m tests.fuzz NAME FILE`` shows a
finding again. The parts in C are built with clang's AddressSanitizer and tell the fuzzer which of their lines an input
reaches. What was learnt stays in ``build/fuzz``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path("build/fuzz").resolve()
PROGRAM = FOLDER / "program"
#: Octets of an input: two requests and more.
LONGEST = 2048


def fuzz(name: str, files: list[str]) -> None:
    """One target, in this process: libFuzzer does not come back."""
    import atheris

    with atheris.instrument_imports(include=["lbarray", "hpack"]):
        targets = importlib.import_module("tests.fuzz.targets")
    folder = Path(os.environ["FUZZ_FOLDER"])
    corpus = folder / "inputs" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in targets.SEEDS[name]:
        (corpus / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    seconds = os.environ.get("FUZZ_SECONDS", "60")
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/{name}-", f"-max_len={LONGEST}", "-timeout=10"]
    atheris.Setup([name, *(files or [*options, "-print_final_stats=1", str(corpus)])], targets.TARGETS[name])
    atheris.Fuzz()


def build() -> dict[str, str]:
    """The program with sanitized parts in C, and the environment that they need."""
    # Without -fsanitize when linking: the sanitizer comes with atheris, and is loaded before everything.
    tools = {"CC": "clang -fsanitize=address,fuzzer-no-link", "LDSHARED": "clang -shared", "CFLAGS": "-O1 -g"}
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(FOLDER / "objects")]
    subprocess.run([*command, "--force", "--build-lib", str(PROGRAM)], env={**os.environ, **tools}, check=True)
    tests = PROGRAM / "tests"
    if not tests.is_symlink():
        tests.symlink_to(Path("tests").resolve())
    found = importlib.util.find_spec("atheris")
    assert found is not None and found.origin is not None
    sanitizer = Path(found.origin).parent.parent / "asan_with_fuzzer.so"
    options = "detect_leaks=0:malloc_context_size=3"
    return {"LD_PRELOAD": str(sanitizer), "ASAN_OPTIONS": options, "FUZZ_FOLDER": str(FOLDER)}


def main(arguments: list[str]) -> None:
    """All targets one after the other, or the one that is named."""
    if "FUZZ_FOLDER" in os.environ:
        fuzz(arguments[0], arguments[1:])
        return
    from tests.fuzz.targets import TARGETS

    FOLDER.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **build()}
    failed = []
    for name in arguments[:1] or TARGETS:
        log = FOLDER / f"{name}.log"
        command = [sys.executable, "-m", "tests.fuzz", name, *(str(Path(each).resolve()) for each in arguments[1:])]
        with log.open("wb") as out:
            ended = subprocess.run(command, stdout=out, stderr=out, cwd=PROGRAM, env=environment, check=False)
        said = log.read_text(errors="replace").splitlines()
        runs = [line.split()[-1] for line in said if "number_of_executed_units" in line]
        print(
            f"{name}: {runs[-1] if runs else len(arguments[1:])} inputs,",
            "FAILED" if ended.returncode else "good",
            flush=True,
        )
        if ended.returncode:
            failed.append(name)
            print(f"  {log} says how; python -m tests.fuzz {name} {FOLDER}/{name}-… does it again")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
