"""From root to a user that keeps only the capabilities that a node needs (capabilities(7))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
from collections.abc import Collection
from pathlib import Path
from typing import Final

from lbarray.errors import SystemRefused

__all__ = ["CAPABILITIES", "become", "held", "only_serve"]

#: What remains, by number: bind ports below 1024; addresses, sysctls and packet programs; raw packets; eBPF.
CAPABILITIES: Final = {
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
#: A standalone node moves no packets.
STANDALONE: Final = ("CAP_NET_BIND_SERVICE",)

_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 8, 24, 38, 47
_AMBIENT_RAISE, _AMBIENT_CLEAR = 2, 4
#: With these root reads its certificates and writes its log, whoever owns them.
_FILES = {"CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2}
_VERSION_3 = 0x20080522
_SETPCAP = 8


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(what: str, *arguments: int) -> None:
    libc = _libc()
    if libc.prctl(*(ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:5])):
        raise SystemRefused(f"give up root ({what})", errno=ctypes.get_errno())


def held() -> frozenset[str]:
    """The capabilities of this process that are in effect, of those that a node needs."""
    line = next(
        (line for line in Path("/proc/thread-self/status").read_text().splitlines() if line.startswith("CapEff:")), ""
    )
    mask = int(line.partition(":")[2] or "0", 16)
    return frozenset(name for name, number in CAPABILITIES.items() if mask >> number & 1)


def become(user: str, keep: Collection[str], own: Collection[Path] = ()) -> None:
    """Be this user from now on, with these capabilities and no way to any other, for all that this process starts.

    Before there are threads: capabilities belong to each.

    :param own: folders that become the user's, with what is in them; made if they are not there.
    :raises SystemRefused: there is no such user, or the kernel would not.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise SystemRefused(
            f"run as {user}",
            detail="there is no such user",
            advice=f"useradd --system --home-dir /var/lib/lbarray --shell /usr/sbin/nologin {user}; or leave "
            "process.user out",
        ) from None
    for folder in own:
        _give(folder, entry.pw_uid, entry.pw_gid)
    numbers = [CAPABILITIES[name] for name in keep]
    for number in range(_last_capability() + 1):
        if number not in numbers and number != _SETPCAP:
            _prctl("bounding set", _PR_CAPBSET_DROP, number)
    _prctl("keep capabilities", _PR_SET_KEEPCAPS, 1)
    try:
        os.initgroups(user, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except OSError as error:
        raise SystemRefused(f"become the user {user}", errno=error.errno or 0, advice="start as root") from None
    _set(numbers)
    for number in numbers:
        # So that workers and the programs that we call (nft) have them too.
        _prctl("ambient set", _PR_CAP_AMBIENT, _AMBIENT_RAISE, number)
    _prctl("no new privileges", _PR_SET_NO_NEW_PRIVS, 1)


def only_serve() -> None:
    """Keep no capability but root's way to files: whoever serves clients on sockets that another process opened needs
    no more, and stands nearest to an attacker. Before there are threads: capabilities belong to each.

    :raises SystemRefused: the kernel would not.
    """
    keep = tuple(_FILES.values()) if os.geteuid() == 0 else ()
    _prctl("ambient set", _PR_CAP_AMBIENT, _AMBIENT_CLEAR)
    if os.geteuid() == 0:
        for number in range(_last_capability() + 1):
            if number not in keep and number != _SETPCAP:
                with contextlib.suppress(SystemRefused):  # a container's root may not; what is in effect goes below
                    _prctl("bounding set", _PR_CAPBSET_DROP, number)
    _set(keep)
    _prctl("no new privileges", _PR_SET_NO_NEW_PRIVS, 1)


def _set(numbers: Collection[int]) -> None:
    header = _Header(_VERSION_3, 0)
    words = (_Data * 2)()
    for number in numbers:
        word = words[number // 32]
        bit = 1 << number % 32
        word.effective |= bit
        word.permitted |= bit
        word.inheritable |= bit
    if _libc().capset(ctypes.byref(header), words):
        raise SystemRefused("keep the capabilities of a node", errno=ctypes.get_errno())


def _last_capability() -> int:
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except (OSError, ValueError):
        return 40


def _give(folder: Path, uid: int, gid: int) -> None:
    """Never follows a link: whoever may write to the folder must not choose what becomes theirs."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(folder, uid, gid, follow_symlinks=False)
        for place, _, names in os.walk(folder, followlinks=False):
            for name in names:
                os.chown(Path(place) / name, uid, gid, follow_symlinks=False)
    except OSError as error:
        raise SystemRefused(f"give {folder} to the user", errno=error.errno or 0) from None
