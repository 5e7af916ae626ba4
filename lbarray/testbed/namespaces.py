"""Network namespaces on one switch, as context managers that leave nothing behind.

Names carry the process that made them, so that a later run removes what a killed one left.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from lbarray.errors import SystemRefused

__all__ = ["Host", "Network", "remove_leftovers"]

PREFIX = "lba"
_numbers = itertools.count(1)
_OURS = re.compile(rf"{PREFIX}-(\d+)-\S+")


def run(command: Sequence[str], *, check: bool = True, timeout_s: float = 30.0) -> str:
    """Run a command to its end; its standard output.

    :raises SystemRefused: it failed (with ``check``), or took too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemRefused(" ".join(command), detail=str(error)) from None
    if check and done.returncode:
        raise SystemRefused(" ".join(command), detail=(done.stderr or done.stdout).strip()[-2000:])
    return done.stdout


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _remove(name: str) -> None:
    for _ in range(50):
        pids = [int(pid) for pid in run(["ip", "netns", "pids", name], check=False).split()]
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
    run(["ip", "netns", "del", name], check=False)


def remove_leftovers() -> list[str]:
    """Remove namespaces whose maker is dead, with all that runs in them; their names."""
    removed = []
    for line in run(["ip", "netns", "list"], check=False).splitlines():
        name = line.split(" ")[0]
        match = _OURS.fullmatch(name)
        if match and not _lives(int(match[1])):
            _remove(name)
            removed.append(name)
    return removed


class Host:
    """One namespace with one interface on the switch.

    :ivar name: as people say it: ``client``, ``a``; :ivar namespace: as the kernel has it.
    """

    INTERFACE = "eth0"

    def __init__(self, name: str, namespace: str, address: str) -> None:
        self.name = name
        self.namespace = namespace
        self.address = address
        self._processes: list[subprocess.Popen[bytes]] = []

    def inside(self, *command: str) -> list[str]:
        """A command line that runs ``command`` here."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def run(self, *command: str, check: bool = True, timeout_s: float = 30.0) -> str:
        """Run a command here to its end; its output."""
        return run(self.inside(*command), check=check, timeout_s=timeout_s)

    def start(self, *command: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a process here that is killed with the namespace at the latest."""
        process = subprocess.Popen(
            self.inside(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        self._processes.append(process)
        return process

    def pids(self) -> list[int]:
        """Processes that run here."""
        return [int(pid) for pid in run(["ip", "netns", "pids", self.namespace], check=False).split()]

    def kill(self) -> None:
        """SIGKILL to every process here."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self._processes:
            process.kill()  # one that has not entered the namespace yet is not among those
            process.wait(timeout=10)
        self._processes.clear()

    def has_address(self, address: str) -> bool:
        """Is ``address`` on an interface other than loopback now?"""
        out = run(["ip", "-n", self.namespace, "-o", "addr", "show"], check=False)
        return any(f" {address}/" in line and not line.split()[1].startswith("lo") for line in out.splitlines())

    def mac(self) -> str:
        """Its interface's MAC address, as text."""
        return self.run("cat", f"/sys/class/net/{self.INTERFACE}/address").strip()


class Network:
    """A switch and the hosts on it; everything is gone when the ``with`` block ends, however it ends.

    :param ipv6: hosts have IPv6, too.
    :raises SystemRefused: namespaces cannot be made here (not root, no ``ip``).
    """

    def __init__(self, *, ipv6: bool = False) -> None:
        self.hosts: dict[str, Host] = {}
        self._ipv6 = ipv6
        self._number = next(_numbers)
        self._switch = self._name("switch")

    def _name(self, name: str) -> str:
        return f"{PREFIX}-{os.getpid()}-{self._number}-{name}"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise SystemRefused("make network namespaces", detail="not root", advice="run it as root")
        remove_leftovers()
        try:
            run(["ip", "netns", "add", self._switch])
            # No IPv6 on the switch: its discovery would only be noise in the counters.
            run(["ip", "netns", "exec", self._switch, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])
            run(["ip", "-n", self._switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0"])
            run(["ip", "-n", self._switch, "link", "set", "br0", "up"])
        except BaseException:
            self.close()
            raise
        return self

    def add(self, name: str, address: str, *more: str) -> Host:
        """A host with ``address`` (and ``more``), each with its prefix length."""
        namespace = self._name(name)
        run(["ip", "netns", "add", namespace])
        host = self.hosts[name] = Host(name, namespace, address.partition("/")[0])
        interface = Host.INTERFACE
        port = f"p-{name}"[:15]
        run(["ip", "-n", namespace, "link", "set", "lo", "up"])
        self._choose_versions(namespace)
        pair = ["type", "veth", "peer", "name", port, "netns", self._switch]
        run(["ip", "link", "add", interface, "netns", namespace, *pair])
        run(["ip", "-n", self._switch, "link", "set", port, "master", "br0", "up"])
        run(["ip", "-n", namespace, "link", "set", interface, "up"])
        for each in (address, *more):
            run(["ip", "-n", namespace, "addr", "add", each, "dev", interface])
        return host

    def add_behind(self, router: Host, name: str, *addresses: tuple[str, str]) -> Host:
        """A host in a segment of its own behind ``router``.

        :param addresses: the host's, each with the router's in that segment; all with prefix lengths.
        """
        namespace = self._name(name)
        run(["ip", "netns", "add", namespace])
        host = self.hosts[name] = Host(name, namespace, addresses[0][0].partition("/")[0])
        inside = f"to-{name}"[:15]
        run(["ip", "-n", namespace, "link", "set", "lo", "up"])
        self._choose_versions(namespace)
        pair = ["type", "veth", "peer", "name", inside, "netns", router.namespace]
        run(["ip", "link", "add", Host.INTERFACE, "netns", namespace, *pair])
        for where, interface, end in ((router.namespace, inside, 1), (namespace, Host.INTERFACE, 0)):
            run(["ip", "-n", where, "link", "set", interface, "up"])
            for pair_of in addresses:
                run(["ip", "-n", where, "addr", "add", pair_of[end], "dev", interface])
        for _, gateway in addresses:
            run(["ip", "-n", namespace, "route", "add", "default", "via", gateway.partition("/")[0]])
        forwarding = ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.all.rp_filter=0"]
        if self._ipv6:
            forwarding.append("net.ipv6.conf.all.forwarding=1")
        router.run("sysctl", "-qw", *forwarding, f"net.ipv4.conf.{inside}.rp_filter=0")
        return host

    def _choose_versions(self, namespace: str) -> None:
        """Whether a host has IPv6; then no detection of duplicates: nobody else is here, and it would take a second."""
        settings = ["all.disable_ipv6=1"]
        if self._ipv6:
            settings = ["all.accept_dad=0", "default.accept_dad=0"]
        named = [f"net.ipv6.conf.{each}" for each in settings]
        run(["ip", "netns", "exec", namespace, "sysctl", "-qw", *named])

    def steer(self, name: str, *, host_cpu: int, port_cpu: int) -> None:
        """Let one processor do the receiving work of a host's interface, and one that of its port at the switch."""
        host = self.hosts[name]
        for namespace, interface, cpu in (
            (host.namespace, Host.INTERFACE, host_cpu),
            (self._switch, f"p-{name}"[:15], port_cpu),
        ):
            path = f"/sys/class/net/{interface}/queues/rx-0/rps_cpus"
            run(["ip", "netns", "exec", namespace, "sh", "-c", f"echo {1 << cpu:x} > {path}"])

    def at_switch(self, *command: str) -> str:
        """Run a command in the switch's namespace to its end; its output."""
        return run(["ip", "netns", "exec", self._switch, *command])

    def attach_at_switch(self, name: str, program: Path | None) -> None:
        """Attach a compiled XDP program to the host's port at the switch, in the driver, or take it away."""
        attached = ["obj", str(program), "sec", "xdp"] if program is not None else ["off"]
        run(["ip", "-n", self._switch, "link", "set", f"p-{name}"[:15], "xdpdrv", *attached])

    def link(self, name: str, up: bool) -> None:
        """Pull the host's cable at the switch, or plug it in again."""
        port = f"p-{name}"[:15]
        run(["ip", "-n", self._switch, "link", "set", port, "up" if up else "down"])

    def limit(self, name: str, mtu: int) -> None:
        """The switch loses frames to this host with packets larger than so many octets."""
        run(["ip", "-n", self._switch, "link", "set", f"p-{name}"[:15], "mtu", str(mtu)])

    def close(self) -> None:
        """Remove everything. Idempotent."""
        for host in self.hosts.values():
            _remove(host.namespace)
        self.hosts.clear()
        _remove(self._switch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
