"""A whole array on one machine: client, nodes and back ends as namespaces, every daemon a real process."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lbarray.errors import SystemRefused
from lbarray.scheduler.prober import FIRST_PORT
from lbarray.testbed.certificates import write_certificate
from lbarray.testbed.connections import Held, Holding
from lbarray.testbed.namespaces import Host, Network, run
from lbarray.testbed.site import write_site
from lbarray.testbed.traffic import Answer, Load, read_answers
from lbarray.testbed.visitors import Visits, Welcome, read_welcomes

__all__ = ["Array", "twistd", "wait_for"]

VIP = "10.77.0.100"
ROUTER = "10.77.0.250"
VIP6 = "fd77::100"
ROUTER6 = "fd77::250"
SITE = "shop.example.com"
CDN = "cdn.example.net"
NODES = {"a": "10.77.0.1", "b": "10.77.0.2", "c": "10.77.0.3"}
BACKENDS = {"w1": "10.77.0.21", "w2": "10.77.0.22", "w3": "10.77.0.23"}
CLIENTS = tuple(f"10.77.0.{number}" for number in range(200, 216))

_NGINX = """daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000;
  types {{ text/html html; text/css css; application/javascript js; image/png png; }}
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 80; root {folder}/site; index index.html;
    gzip on; gzip_types text/css; gzip_min_length 100; gzip_proxied any;
    location = /order {{ return 200 "ordered from {name}\\n"; }}
    location = /small {{ default_type text/plain; return 200 "{small}"; }}
    location = /login {{ add_header Set-Cookie "JSESSIONID=$request_id; Path=/"; return 200 "in\n"; }}
  }}
}}
"""

_CONFIG = """
[array]
name = "testbed"
key_file = "array.key"
interface = "eth0"
vips = ["{vip}/24"]
state_dir = "state"

{nodes}
[failover]
interval = "100ms"

[membership]
interval = "100ms"
lost_after = 4

[worker]
expose = true
stop_grace = "2s"

[services.http]
vip = "{vip}"
port = 80

[services.https]
vip = "{vip}"
port = 443
tls = {{ certificate = "site.crt", key = "site.key" }}

[pools.web]
check = {{ kind = "http", path = "/health", interval = "300ms", timeout = "250ms", fall = 2, rise = 1 }}
persistence = {{ cookie = "LBARRAY" }}

[pools.web.backends]
{backends}

[cdn]
host = "{cdn}"
paths = ["/static/", "/images/"]
own_hosts = ["{site}"]

[console]
status = "127.0.0.1:9080"
token_file = "api.token"
manhole = {{ listen = "127.0.0.1:4722", user = "admin", password_file = "manhole.password" }}
"""

Found = TypeVar("Found")


def twistd() -> list[str]:
    """The command line of this Python's twistd."""
    beside = Path(sys.executable).parent / "twistd"
    if beside.exists():
        return [sys.executable, str(beside)]
    return [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


def wait_for(look: Callable[[], Found | None], what: str, timeout_s: float = 15.0, pause_s: float = 0.02) -> Found:
    """What ``look`` finds, once it is something.

    :raises SystemRefused: nothing within ``timeout_s``.
    """
    until = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            raise SystemRefused(f"wait for {what}", detail=f"not within {timeout_s:g} s")
        time.sleep(pause_s)


class Array:
    """Client, switch, nodes and back ends; all running inside the ``with`` block, all gone behind it.

    :param far: nodes beyond a router, each in a segment of its own: workers only.
    :param edit: changes the text of the configuration before it is written.
    :param ipv6: there is an IPv6 VIP besides, with the same services.
    :ivar folder: configuration, keys and logs; removed at the end.
    """

    def __init__(
        self,
        *,
        nodes: Mapping[str, str] = NODES,
        edit: Callable[[str], str] = lambda text: text,
        ipv6: bool = False,
        far: Sequence[str] = (),
    ) -> None:
        self._far = tuple(far)
        self.nodes = dict(nodes)
        self.network = Network(ipv6=ipv6)
        self._ipv6 = ipv6
        self.folder = Path(tempfile.mkdtemp(prefix="lbarray-testbed-"))
        self._edit = edit

    @property
    def client(self) -> Host:
        """The namespace that clients run in."""
        return self.network.hosts["client"]

    def host(self, name: str) -> Host:
        """A node or back end by name."""
        return self.network.hosts[name]

    def __enter__(self) -> Self:
        try:
            self.network.__enter__()
            self._write_files()
            self.network.add("client", *self._addresses("10.77.0.199"), *(f"{client}/24" for client in CLIENTS))
            self._count_responses(self.client)
            for name, address in BACKENDS.items():
                self.network.add(name, f"{address}/24")
                self.start_backend(name)
            for name, address in self.nodes.items():
                if name not in self._far:
                    self.network.add(name, *self._addresses(address))
            self._add_far()
            for name in self.nodes:
                self._count_responses(self.host(name))
                self.start_node(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop and remove everything. Idempotent."""
        self.network.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _addresses(self, address: str) -> list[str]:
        """A host's addresses with their prefix lengths; its IPv6 one has the same last number."""
        last = address.rpartition(".")[2]
        return [f"{address}/24", f"fd77::{last}/64"] if self._ipv6 else [f"{address}/24"]

    def _write_files(self) -> None:
        write_certificate(self.folder, SITE, VIP)
        for name, text in (
            ("array.key", secrets.token_hex(32)),
            ("manhole.password", secrets.token_urlsafe(12)),
            ("api.token", secrets.token_hex(16)),
        ):
            path = self.folder / name
            path.touch(mode=0o600)
            path.write_text(text + "\n")
        nodes = "".join(
            f'[array.nodes.{name}]\naddress = "{address}"\npriority = {150 - 20 * place}\n\n'
            for place, (name, address) in enumerate(self.nodes.items())
        )
        backends = "\n".join(f'{name} = {{ address = "{address}:80" }}' for name, address in BACKENDS.items())
        text = _CONFIG.format(vip=VIP, cdn=CDN, site=SITE, nodes=nodes, backends=backends)
        if self._ipv6:
            text = text.replace(f'vips = ["{VIP}/24"]', f'vips = ["{VIP}/24", "{VIP6}/64"]')
            text += f'[services.http6]\nvip = "{VIP6}"\nport = 80\n'
        text = self._edit(text)
        if "[scheduler]" not in text:
            text += "\n[scheduler]\nslow_start = 0\n"  # whoever begins has its whole share at once
        self.config.write_text(text)

    def _add_far(self) -> None:
        """Nodes in segments of their own behind one router, and everybody's way there."""
        if not self._far:
            return
        router = self.network.add("router", *self._addresses(ROUTER))
        for place, name in enumerate(self._far):
            ends = [(f"{self.nodes[name]}/24", f"10.78.{place}.254/24")]
            if self._ipv6:
                last = self.nodes[name].rpartition(".")[2]
                ends.append((f"fd78:0:0:{place}::{last}/64", f"fd78:0:0:{place}::254/64"))
            self.network.add_behind(router, name, *ends)
        for host in self.network.hosts.values():
            if host is not router and host.name not in self._far:
                host.run("ip", "route", "add", "10.78.0.0/16", "via", ROUTER)
                if self._ipv6 and host.name not in BACKENDS:
                    host.run("ip", "route", "add", "fd78::/48", "via", ROUTER6)

    @property
    def config(self) -> Path:
        """The configuration that all nodes share."""
        return self.folder / "array.toml"

    def log_of(self, name: str) -> str:
        """What a node or back end has said so far."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # Back ends

    def start_backend(self, name: str) -> None:
        """Start nginx with its copy of the site."""
        folder = self.folder / name
        write_site(folder / "site", name)
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, name=name, small="s" * 50))
        with (self.folder / f"{name}.log").open("ab") as log:
            self.host(name).start("nginx", "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf"), log=log)
        # nginx drops its privileges for files that it must read.
        run(["chmod", "-R", "a+rX", str(self.folder)])
        for private in ("array.key", "site.key", "manhole.password", "api.token"):
            (self.folder / private).chmod(0o600)

    # Nodes

    def start_node(self, name: str, *, config: Path | None = None, role: str = "") -> subprocess.Popen[bytes]:
        """Start the daemon of one node, with one role or all: beyond a router, where there is no VRRP, as a worker."""
        role = role or ("worker" if name in self._far else "node")
        options = ["--config", str(config or self.config), "--node", name]
        command = [*twistd(), "-n", "--pidfile=", "lbarray", role, *options]
        with (self.folder / f"{name}.log").open("ab") as log:
            return self.host(name).start(*command, log=log)

    def status(self, name: str) -> dict[str, Any] | None:
        """A node's own status, ``None`` while it does not answer."""
        # By its socket, which is in no namespace: tests ask thousands of times, and need no process for it.
        try:
            with socket.socket(socket.AF_UNIX) as asked:
                asked.settimeout(2.0)
                asked.connect(str(self.folder / "state" / f"{name}.sock"))
                asked.sendall(b"GET /status HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: asked.recv(1 << 16), b""))
            status: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        except (OSError, ValueError):
            return None
        return status

    def command(self, name: str, *arguments: str) -> str:
        """What ``lbarray ARGUMENTS`` says, asked of a node through its socket; its errors too."""
        options = ["--socket", str(self.folder / "state" / f"{name}.sock")]
        done = subprocess.run(
            [sys.executable, "-m", "lbarray", *arguments, *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return done.stdout + done.stderr

    def owners(self) -> list[str]:
        """The nodes that have the VIP on their interface."""
        return [name for name in self.nodes if self.host(name).has_address(VIP)]

    def owner(self, timeout_s: float = 15.0) -> str:
        """The node that owns the VIP, once there is exactly one."""

        def look() -> str | None:
            owners = self.owners()
            return owners[0] if len(owners) == 1 else None

        return wait_for(look, "one owner of the VIP", timeout_s)

    def wait_owner_of(self, vips: Iterable[str], name: str, timeout_s: float = 15.0) -> None:
        """Until ``name``, and no other node, has all these VIPs.

        :raises SystemRefused: not within that time; with the last lines of the nodes' logs.
        """
        wanted = {(vip, name) for vip in vips}

        def look() -> bool:
            return wanted == {
                (vip, each) for vip, _ in wanted for each in self.nodes if self.host(each).has_address(vip)
            }

        try:
            wait_for(look, f"{name} to own {', '.join(sorted(vip for vip, _ in wanted))}", timeout_s)
        except SystemRefused as error:
            logs = "\n".join(f"--- {each}\n{self.log_of(each)[-2000:]}" for each in self.nodes)
            raise SystemRefused(error.tried, detail=f"{error.detail}\n{logs}") from None

    def wait_ready(self, timeout_s: float = 20.0) -> str:
        """Wait until the owner gives rows to every node and every back end is up; the owner's name."""

        def look() -> str | None:
            owners = self.owners()
            status = self.status(owners[0]) if len(owners) == 1 else None
            if status is None or VIP not in status["failover"]["owned"]:
                return None
            rows = [worker["rows"] for worker in status["scheduler"]["workers"].values()]
            states = [
                member["state"]
                for name in self.nodes
                for members in ((self.status(name) or {}).get("pools") or {"": {"": {"state": "?"}}}).values()
                for member in members.values()
            ]
            # Whoever has just begun has few, and perhaps none of a test's clients.
            return owners[0] if 6 * min(rows) > max(rows) and set(states) == {"up"} else None

        def settled() -> str | None:
            # Nodes that start at different moments may hand the VIP on once: wait until it has found its place.
            owner = look()
            if owner is None:
                return None
            time.sleep(0.5)
            return owner if look() == owner else None

        try:
            return wait_for(settled, "the array to be ready", timeout_s, 0.1)
        except SystemRefused as error:
            logs = "\n".join(f"--- {name}\n{self.log_of(name)[-1500:]}" for name in self.nodes)
            raise SystemRefused(error.tried, detail=f"{error.detail}\n{logs}") from None

    def kill_node(self, name: str) -> float:
        """SIGKILL to everything that runs on a node; when, in monotonic seconds."""
        host = self.host(name)
        at = time.monotonic()
        host.kill()
        return at

    # Looking at packets

    def _count_responses(self, host: Host) -> None:
        """Count what comes in at a host's interface with a VIP as its source, but for answers to probes."""
        rules = f"""
        table netdev watch {{
          counter through {{ }}
          chain arriving {{
            type filter hook ingress device "{Host.INTERFACE}" priority 0; policy accept;
            ip saddr {VIP} tcp dport < {FIRST_PORT} counter name through
            ip6 saddr {VIP6} tcp dport < {FIRST_PORT} counter name through
          }}
        }}
        """
        path = self.folder / f"{host.name}.nft"
        path.write_text(rules)
        host.run("nft", "-f", str(path))

    def responses_through(self, name: str) -> int:
        """Octets from the VIPs that have come in at a host: at a node, responses of other workers."""
        listed = json.loads(self.host(name).run("nft", "-j", "list", "counter", "netdev", "watch", "through"))
        return sum(int(item["counter"]["bytes"]) for item in listed["nftables"] if "counter" in item)

    # Traffic

    def load(self, *, tls: bool = False, **more: Any) -> Load:
        """What clients ask the VIP, from all their addresses."""
        return Load(
            host=VIP,
            port=443 if tls else 80,
            name=SITE,
            sources=more.pop("sources", CLIENTS),
            authority=str(self.folder / "site.crt") if tls else "",
            **more,
        )

    def start_clients(self, load: Load) -> Clients:
        """Begin to ask; see :meth:`Clients.answers`."""
        path = self.folder / f"traffic-{secrets.token_hex(4)}.jsonl"
        with path.open("wb") as out:
            process = self.client.start(sys.executable, "-m", "lbarray.testbed.traffic", load.to_json(), log=out)
        return Clients(process, path)

    def drain(self, name: str) -> None:
        """Order a node to take no new connections."""
        arguments = ("--config", str(self.config), "--node", name, name)
        self.host(name).run(sys.executable, "-m", "lbarray", "drain", *arguments)

    def hold_connections(self, count: int, *, vip: str = VIP, sources: Sequence[str] = CLIENTS) -> HeldConnections:
        """Open so many connections to the plain service, and keep them; see :meth:`HeldConnections.ask`.

        :param sources: the client's own addresses, of the VIP's version of IP.
        """
        holding = Holding(host=vip, port=80, count=count, sources=tuple(sources))
        command = self.client.inside(sys.executable, "-m", "lbarray.testbed.connections", holding.to_json())
        log = (self.folder / "connections.log").open("ab")
        return HeldConnections(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        )

    def visit(self, visits: Visits, *, timeout_s: float = 60.0) -> list[Welcome]:
        """Make many clients' visits and wait for all of them, in their order."""
        path = visits.write(self.folder / f"visits-{secrets.token_hex(4)}.json")
        text = self.client.run(sys.executable, "-m", "lbarray.testbed.visitors", str(path), timeout_s=timeout_s)
        return read_welcomes(text)

    def ask(self, load: Load) -> list[Answer]:
        """Ask and wait for all answers."""
        return self.start_clients(load).answers(timeout_s=load.seconds + load.timeout_s + 10)


class Clients:
    """Clients at work."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self._process = process
        self._path = path

    def answers(self, timeout_s: float) -> list[Answer]:
        """Every answer, once they have ended.

        :raises SystemRefused: they said nothing at all.
        """
        self._process.wait(timeout=timeout_s)
        text = self._path.read_text()
        answers = read_answers(text)
        if not answers:
            raise SystemRefused("run the clients", detail=text[-2000:])
        return answers

    def so_far(self) -> list[Answer]:
        """The answers that are there now."""
        text = self._path.read_text()
        return read_answers(text[: text.rfind("\n") + 1])


class HeldConnections:
    """Connections that stay open; :meth:`close` ends them, as the end of the array does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self) -> Held:
        """Let every one that is open ask once more, and wait for the answers.

        :raises SystemRefused: the process that holds them has ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("ask\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemRefused("ask over held connections", detail=f"their process ended: {self._process.wait(5)}")
        return Held.from_json(line)

    def close(self) -> None:
        """End them all."""
        self._process.kill()
        self._process.wait(10)
