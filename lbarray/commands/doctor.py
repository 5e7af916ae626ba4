"""``lbarray doctor``: looks at this machine before a node has to find out."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509

from lbarray.bpf.build import object_path
from lbarray.commands.registry import Commands
from lbarray.config.load import load
from lbarray.config.model import Config
from lbarray.errors import ArrayError, SystemRefused
from lbarray.kernel.addresses import addresses_of
from lbarray.kernel.libbpf import library
from lbarray.kernel.links import link
from lbarray.kernel.sysctls import read_sysctl

__all__ = ["Finding", "Machine", "add", "examine"]

#: A kernel with tc programs that may look up sockets and be pinned (Debian 11 has it).
KERNEL: Final = (5, 10)
OPEN_FILES = 65536
CONNECT_S = 1.0


@attrs.frozen
class Finding:
    """One thing that was looked at.

    :ivar level: ``good``, ``warn`` (it will work, but) or ``bad`` (it will not).
    :ivar advice: the command that puts it right.
    """

    level: str
    what: str
    advice: str = ""


class Machine:
    """This machine, as far as it is looked at."""

    def kernel(self) -> tuple[int, int]:
        """Its version."""
        first, second = os.uname().release.split(".")[:2]
        return int(first), int("".join(c for c in second if c.isdigit()) or 0)

    def is_root(self) -> bool:
        """Are we?"""
        return os.geteuid() == 0

    def sysctl(self, name: str) -> str:
        """A kernel parameter; empty where there is none."""
        try:
            return read_sysctl(name)
        except SystemRefused:
            return ""

    def run(self, *command: str) -> str:
        """What a program prints; empty where it is missing or fails."""
        if shutil.which(command[0]) is None:
            return ""
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        return done.stdout if done.returncode == 0 else ""

    def clock_is_set(self) -> bool | None:
        """Does something keep the clock right (adjtimex(2))? ``None``: unknown."""
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(256))
        return None if state < 0 else bool(state != 5)

    def open_files(self) -> int:
        """How many descriptors a process may have at most."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def connects(self, host: str, port: int) -> str:
        """Empty when a connection is taken, else why not."""
        try:
            socket.create_connection((host, port), CONNECT_S).close()
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def taken(self, host: str, port: int) -> bool:
        """Does somebody listen there already?"""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                return error.errno == 98
        return False

    def packet_program(self) -> str:
        """Empty when eBPF can be used, else why not."""
        try:
            library()
            object_path()
        except ArrayError as error:
            return str(error)
        except OSError as error:
            return str(error)
        return ""


def add(commands: Commands) -> None:
    """``doctor``."""
    command = commands.add("doctor", doctor)
    command.add_argument("file", type=Path, metavar="FILE", help="the configuration")
    command.add_argument("--node", metavar="NAME", help="which node of it this machine is to be")
    command.add_argument("--json", action="store_true", help="for programs")


def doctor(arguments: argparse.Namespace) -> int:
    """Look at this machine, and say what would not work here and the command that puts it right."""
    from lbarray.node import node_name

    config = load(arguments.file)
    name = node_name(config, arguments.node, str(arguments.file))
    found = list(examine(config, name, Machine()))
    if arguments.json:
        print(json.dumps([attrs.asdict(finding) for finding in found], indent=1))
    else:
        marks = {"good": "ok  ", "warn": "look", "bad": "BAD "}
        for finding in found:
            print(f"{marks[finding.level]}  {finding.what}")
            if finding.advice:
                print(f"      put right by: {finding.advice}")
        bad = sum(finding.level == "bad" for finding in found)
        print(f"\n{bad} of {len(found)} would keep node {name} from working" if bad else f"\nnode {name} can work here")
    return 1 if any(finding.level == "bad" for finding in found) else 0


def examine(config: Config, name: str, machine: Machine) -> Iterator[Finding]:
    """Everything, in the order in which a node would meet it."""
    yield from _limits(config, machine)
    if not config.standalone:
        yield from _kernel(machine)
        yield from _network(config, name, machine)
        yield from _firewall(config, machine)
        yield _clock(machine)
    yield from _ports(config, name, machine)
    yield from _certificates(config)
    yield from _state(config)
    yield from _backends(config, machine)


def _verdict(good: bool, what: str, advice: str, level: str = "bad") -> Finding:
    return Finding("good", what) if good else Finding(level, what, advice)


def _limits(config: Config, machine: Machine) -> Iterator[Finding]:
    files = machine.open_files()
    yield _verdict(
        files >= OPEN_FILES,
        f"a process may have {files} open files; each client takes two",
        f"LimitNOFILE={OPEN_FILES * 8} in the unit of systemd, or: ulimit -Hn {OPEN_FILES}",
        "warn",
    )
    queue = machine.sysctl("net.core.somaxconn")
    if queue:
        yield _verdict(
            int(queue) >= 1024,
            f"{queue} new connections may wait to be accepted (net.core.somaxconn)",
            "sysctl -w net.core.somaxconn=4096",
            "warn",
        )


def _kernel(machine: Machine) -> Iterator[Finding]:
    version = machine.kernel()
    yield _verdict(
        version >= KERNEL,
        f"the kernel is {version[0]}.{version[1]}",
        f"a kernel of {KERNEL[0]}.{KERNEL[1]} or newer: apt-get install linux-image-amd64, then reboot",
    )
    yield _verdict(
        machine.is_root(),
        "we are root" if machine.is_root() else "we are not root: a node of an array starts as root",
        "sudo lbarray doctor …; the node itself: systemctl start lbarray",
    )
    refused = machine.packet_program()
    yield _verdict(
        not refused,
        f"the packet program (eBPF) cannot be used: {refused}" if refused else "the packet program (eBPF) is there",
        "apt-get install clang libbpf-dev libbpf1",
    )


def _network(config: Config, name: str, machine: Machine) -> Iterator[Finding]:
    own = config.array.nodes[name]
    interface = config.interface_of(own)
    try:
        place = link(interface)
        there = addresses_of(interface)
    except SystemRefused as error:
        yield Finding("bad", str(error), f"ip link; then set array.nodes.{name}.interface")
        return
    yield _verdict(place.carrier, f"the interface {interface} is connected", f"ip link set {interface} up; the cable?")
    yield _verdict(
        own.address in there,
        f"the address {own.address} of node {name} is {'' if own.address in there else 'not '}on {interface}",
        f"ip addr add {own.address}/24 dev {interface}, or another --node",
    )
    for vip in config.array.vips:
        if vip.ip in there:
            yield Finding(
                "warn",
                f"the VIP {vip.ip} is on {interface} already: a node that was killed, or another program (keepalived?)",
                "lbarray cleanup FILE --node NAME; systemctl disable --now keepalived",
            )
    for other, node in config.array.nodes.items():
        # Without its own address a machine finds every way through its router.
        if other != name and own.address in there:
            route = machine.run("ip", "-o", "route", "get", str(node.address))
            yield _verdict(
                " via " not in route,
                f"node {other} ({node.address}) is {'behind a router' if ' via ' in route else 'a neighbour'}",
                "packets go there in a tunnel (array.nodes.NAME.tunnel); VRRP passes no router: set failover.unicast "
                'and failover.unicast_min_ttl, or failover.mode = "bgp"',
                "warn",
            )
    strict = [each for each in ("all", interface) if machine.sysctl(f"net.ipv4.conf.{each}.rp_filter") == "1"]
    default = machine.run("ip", "-o", "route", "show", "default")
    yield _verdict(
        not strict or f" dev {interface} " in f"{default} ",
        f"clients' packets are {'checked against their way back (rp_filter)' if strict else 'accepted from anywhere'}",
        f"sysctl -w {' '.join(f'net.ipv4.conf.{each}.rp_filter=2' for each in strict)}: clients of {interface} are "
        "answered over another interface",
    )
    busy = [each for each in ("keepalived", "ucarp") if machine.run("pgrep", "-x", each).strip()]
    if busy:
        stop = f"systemctl disable --now {busy[0]}"
        yield Finding("warn", f"{busy[0]} runs here too: do both want the same VIP?", stop)


def _firewall(config: Config, machine: Machine) -> Iterator[Finding]:
    closed = []
    try:
        ruleset = json.loads(machine.run("nft", "-j", "list", "ruleset") or "{}")
    except ValueError:
        ruleset = {}
    for item in ruleset.get("nftables", ()):
        chain = item.get("chain", {})
        if chain.get("hook") == "input" and chain.get("policy") == "drop" and chain.get("family") in ("ip", "inet"):
            closed.append(f"{chain['family']} {chain['table']} {chain['name']}")
    port = config.membership.port
    ports = ", ".join(str(service.port) for service in config.services.values())
    advice = "; ".join(
        f"nft insert rule {chain} ip protocol 112 accept; nft insert rule {chain} udp dport {port} accept; "
        f"nft insert rule {chain} tcp dport {{ {ports} }} accept"
        for chain in closed
    )
    said = f"the firewall drops what no rule lets in ({', '.join(closed)}): VRRP, heartbeats and clients must be let in"
    yield _verdict(not closed, said if closed else "no firewall drops by default here", advice, "warn")


def _clock(machine: Machine) -> Finding:
    set_right = machine.clock_is_set()
    said = "the clock is kept right" if set_right is not False else "nothing keeps the clock right; nodes must agree"
    return _verdict(
        set_right is not False,
        said,
        "apt-get install chrony",
        "warn",
    )


def _ports(config: Config, name: str, machine: Machine) -> Iterator[Finding]:
    if config.standalone:
        places = [(str(service.address), service.port) for service in config.services.values()]
    else:
        # The VIPs are not here yet: whoever has the port on every address has it on them too.
        places = [("0.0.0.0", service.port) for service in config.services.values()]
    places.append((config.console.status.host, config.console.status.port))
    for host, port in dict.fromkeys(places):
        yield _verdict(
            not machine.taken(host, port),
            f"TCP port {port} of {host} is {'taken' if machine.taken(host, port) else 'free'}",
            f"ss -ltnp 'sport = :{port}' says by whom (by this node itself, when it runs)",
            "warn",
        )


def _certificates(config: Config) -> Iterator[Finding]:
    for name, service in config.services.items():
        if service.tls is None:
            continue
        path = service.tls.certificate
        try:
            certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
        except (OSError, ValueError) as error:
            yield Finding("bad", f"services.{name}: no certificate in {path}: {error}", "PEM, the certificate first")
            continue
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        yield Finding(
            "bad" if left.days < 0 else "warn" if left.days < 14 else "good",
            f"services.{name}: the certificate {'has expired' if left.days < 0 else f'is good for {left.days} days'}",
            "" if left.days >= 14 else f"renew it and put it into {path}",
        )
        key = service.tls.key
        if key is not None and key.exists():
            mode = key.stat().st_mode & 0o777
            yield _verdict(
                not mode & 0o007,
                f"services.{name}: {'every user of this machine can read' if mode & 0o007 else 'others cannot read'} "
                "the private key",
                f"chmod 600 {key}",
            )


def _state(config: Config) -> Iterator[Finding]:
    folder = config.array.state_dir
    place = folder
    while not place.exists():
        place = place.parent
    yield _verdict(
        os.access(place, os.W_OK),
        f"{folder} can {'' if os.access(place, os.W_OK) else 'not '}be written to (array.state_dir)",
        f"install -d -m 700 {folder}",
    )


def _backends(config: Config, machine: Machine) -> Iterator[Finding]:
    for pool_name, pool in config.pools.items():
        for name, backend in list(pool.backends.items())[:20]:
            host = backend.address.host
            why = machine.connects(host, backend.address.port)
            yield _verdict(
                not why,
                f"back end {pool_name}/{name} ({backend.address}) "
                + (f"takes no connection: {why}" if why else "takes connections"),
                f"does it run, and may it be reached from here? curl -v http://{backend.address}/",
                "warn",
            )
