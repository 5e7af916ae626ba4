"""Kernel parameters under ``/proc/sys/net``."""

from __future__ import annotations

from pathlib import Path

from lbarray.errors import SystemRefused

__all__ = ["read_sysctl", "write_sysctl"]

ROOT = Path("/proc/sys")


def _path(name: str) -> Path:
    # Dots separate, except in interface names, which are written with a slash as sysctl(8) does.
    return ROOT / name.replace(".", "\0").replace("/", ".").replace("\0", "/")


def read_sysctl(name: str) -> str:
    """The value of ``net.ipv4.conf.eth0.arp_ignore`` and the like.

    :raises SystemRefused: there is no such parameter.
    """
    try:
        return _path(name).read_text().strip()
    except OSError as error:
        raise SystemRefused(f"read sysctl {name}", errno=error.errno or 0) from None


def write_sysctl(name: str, value: str) -> str:
    """Set a parameter; returns the value that it had.

    :raises SystemRefused: the kernel would not.
    """
    before = read_sysctl(name)
    if before != value:
        try:
            _path(name).write_text(value)
        except OSError as error:
            raise SystemRefused(
                f"set sysctl {name}={value}", errno=error.errno or 0, advice="run the node as root (CAP_NET_ADMIN)"
            ) from None
    return before
