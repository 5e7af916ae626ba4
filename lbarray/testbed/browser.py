"""A headless Chromium, as far as tests need one: a picture of a page, or its tree."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from lbarray.errors import SystemRefused

__all__ = ["CHROMIUM", "dump_dom", "pixels", "screenshot"]

CHROMIUM = "chromium"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--ignore-certificate-errors",
    "--disable-features=HttpsUpgrades,HttpsFirstBalancedMode,HttpsFirstBalancedModeAutoEnable",
)


def _run(
    url: str, *options: str, inside: Sequence[str], names: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    profile = tempfile.mkdtemp(prefix="lbarray-chromium-")
    rules = ", ".join([*(f"MAP {name} {address}" for name, address in names.items()), "MAP * ~NOTFOUND"])
    command = [
        *inside,
        CHROMIUM,
        *_FLAGS,
        f"--user-data-dir={profile}",
        f"--host-resolver-rules={rules}",
        *options,
        url,
    ]
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemRefused(f"show {url} in {CHROMIUM}", detail=str(error)) from None
    finally:
        shutil.rmtree(profile, ignore_errors=True)


def dump_dom(
    url: str,
    *,
    inside: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
    settle_s: float = 0.0,
) -> str:
    """A page's tree as text, after its scripts have run.

    :param inside: a prefix that runs a command elsewhere, such as in a namespace.
    :param names: addresses by host name; no other name is found.
    :param settle_s: of the page's own time, for what begins after it is loaded.
    :raises SystemRefused: there is no browser, or it takes too long.
    """
    options = ["--dump-dom", *([f"--virtual-time-budget={settle_s * 1000:.0f}"] if settle_s else [])]
    done = _run(url, *options, inside=inside, names=names or {}, timeout_s=timeout_s)
    return done.stdout.decode("utf-8", "replace")


def screenshot(
    url: str,
    target: Path,
    *,
    inside: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
) -> None:
    """Write a picture of a page, PNG.

    :raises SystemRefused: there is no browser, it takes too long, or there is no picture.
    """
    options = (f"--screenshot={target}", "--window-size=800,900")
    done = _run(url, *options, inside=inside, names=names or {}, timeout_s=timeout_s)
    if not target.exists():
        raise SystemRefused(f"show {url} in {CHROMIUM}", detail=done.stderr.decode("utf-8", "replace")[-1000:])


def pixels(picture: Path) -> tuple[tuple[int, int], bytes]:
    """Size and rows of a PNG; two of one encoder are equal exactly when their pixels are."""
    data = picture.read_bytes()
    at, rows, size = 8, b"", (0, 0)
    while at < len(data):
        (length,) = struct.unpack_from("!I", data, at)
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            size = struct.unpack_from("!II", content)
        elif kind == b"IDAT":
            rows += content
        at += 12 + length
    return size, zlib.decompress(rows)
