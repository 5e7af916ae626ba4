"""Compiles the packet program: ``python -m lbarray.bpf.build``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from lbarray.errors import SystemRefused

__all__ = ["build", "compile_program", "object_path"]

HERE = Path(__file__).resolve().parent


def object_path(folder: Path = HERE) -> Path:
    """The compiled program, built first when it is missing or older than its sources.

    :raises SystemRefused: it has to be built and cannot be.
    """
    compiled = folder / "scheduler.bpf.o"
    newest = max(path.stat().st_mtime for path in HERE.iterdir() if path.suffix in (".c", ".h"))
    # An installed one may be older than its sources by the installer's doing; who may not write there uses it.
    final = shutil.which("clang") is None or not os.access(folder, os.W_OK)
    if compiled.exists() and (compiled.stat().st_mtime >= newest or final):
        return compiled
    return build(folder)


def build(folder: Path = HERE) -> Path:
    """Compile ``scheduler.bpf.c`` into ``folder``.

    :raises SystemRefused: clang or libbpf's headers are missing, or the compiler says no.
    """
    return compile_program(HERE / "scheduler.bpf.c", folder / "scheduler.bpf.o")


def compile_program(source: Path, compiled: Path, *more: str) -> Path:
    """Compile one eBPF program, with ``more`` options of the compiler.

    :raises SystemRefused: clang or libbpf's headers are missing, or the compiler says no.
    """
    clang = shutil.which("clang")
    if clang is None:
        raise SystemRefused(
            "compile the packet program", detail="clang is missing", advice="apt-get install clang libbpf-dev"
        )
    headers = sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu"
    # Addresses are read and written as words.
    options = ["-O2", "-g", "-Wall", "-fno-strict-aliasing", "-target", "bpf"]
    command = [clang, *options, f"-I/usr/include/{headers}", "-I", str(HERE)]
    done = subprocess.run(
        [*command, *more, "-c", str(source), "-o", str(compiled)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemRefused(
            "compile the packet program", detail=done.stderr.strip()[-2000:], advice="apt-get install clang libbpf-dev"
        )
    return compiled


if __name__ == "__main__":
    try:
        print(build())
    except SystemRefused as refused:
        sys.exit(f"lbarray: {refused}")
