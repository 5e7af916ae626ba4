"""``make demo``: what an array does, for everybody to see; ends with an error unless all of it happened."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lbarray.errors import SystemRefused
from lbarray.testbed.certificates import write_certificate
from lbarray.testbed.nodes import BACKENDS, CDN, CLIENTS, SITE, VIP, Array, twistd, wait_for
from lbarray.testbed.site import write_site
from lbarray.testbed.traffic import Answer, Load, read_answers

__all__ = ["run"]

_NEEDED = ("ip", "nft", "nginx", "curl")


class Happened:
    """What was promised and whether it was seen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.failed: list[str] = []
        self.facts: dict[str, Any] = {}

    def check(self, promise: str, kept: bool) -> None:
        """Say it, and remember when it is not so."""
        self._console.print(f"  [green]✓[/] {promise}" if kept else f"  [bold red]✗ {promise}[/]")
        if not kept:
            self.failed.append(promise)


def run(*, once: bool, json_path: Path) -> int:
    """The demo; 0 only if everything that it promises really happened."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    happened = Happened(console)
    if os.geteuid() == 0 and not missing:
        console.print("Running as root: a whole array in network namespaces of this machine.\n")
        _array(console, happened, once)
    else:
        why = f"{', '.join(missing)} missing" if os.geteuid() == 0 else "not root, so no network namespaces"
        console.print(f"One standalone node on loopback ports, without a VIP ({why}).\n")
        _standalone(console, happened, once)
    json_path.write_text(json.dumps(happened.facts, indent=1) + "\n")
    console.print(f"\nWritten to {json_path}")
    if happened.failed:
        console.print(f"[bold red]{len(happened.failed)} of the promises were not kept.[/]")
    return 1 if happened.failed else 0


# A whole array


def _array(console: Console, happened: Happened, once: bool) -> None:
    with Array() as array:
        console.rule("The array")
        _show_topology(console)
        owner = array.wait_ready()
        happened.facts["owner_before"] = owner
        happened.check(f"node {owner} was elected: it owns {VIP} and schedules", True)
        counted = _requests(console, happened, array)
        _cookie(console, happened, array)
        _rewriting(console, happened, array)
        _direct_return(console, happened, array, owner, counted)
        _takeover(console, happened, array, owner)
        _look_inside(console, happened, array)
        if not once:
            console.print("\nThe array stays up until Ctrl-C.")
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                console.print("\nStopping.")


def _show_topology(console: Console) -> None:
    console.print(
        f"client {CLIENTS[0]} … {CLIENTS[-1]}   switch   nodes a b c   back ends {' '.join(BACKENDS)} (nginx)\n"
        f"VIP {VIP}: http on port 80, https on port 443; pages of {SITE}, static content at {CDN}\n"
    )


def _answer_table(title: str, answers: list[Answer]) -> Table:
    table = Table(title=title, title_justify="left")
    backends = sorted({answer.backend for answer in answers if answer.backend})
    table.add_column("answered by node")
    for backend in backends:
        table.add_column(f"from {backend}", justify="right")
    table.add_column("requests", justify="right")
    for node in sorted({answer.node for answer in answers if answer.node}):
        mine = Counter(answer.backend for answer in answers if answer.node == node)
        table.add_row(node, *(str(mine[backend]) for backend in backends), str(mine.total()))
    return table


def _requests(console: Console, happened: Happened, array: Array) -> list[Answer]:
    console.rule("Requests")
    answers = array.ask(array.load(count=60, threads=3))
    answers += array.ask(array.load(count=60, threads=3, tls=True))
    answers += array.ask(array.load(count=30, per_connection=10, tls=True, path="/whoami.html"))
    console.print(_answer_table("60 over HTTP, 60 over HTTPS, 30 over keepalive HTTPS connections of 10", answers))
    happened.check(f"{len(answers)} requests, all answered with success", all(answer.good for answer in answers))
    nodes = Counter(answer.node for answer in answers)
    backends = Counter(answer.backend for answer in answers)
    happened.check("every node decrypted and answered some", set(nodes) == set(array.nodes))
    happened.check("every back end got some", set(backends) == set(BACKENDS))
    happened.facts["per_node"] = dict(sorted(nodes.items()))
    happened.facts["per_backend"] = dict(sorted(backends.items()))
    return answers


def _cookie(console: Console, happened: Happened, array: Array) -> None:
    console.rule("The cookie")
    answers = array.ask(array.load(count=12, keep_cookies=True, tls=True))
    cookie = next((answer.cookie for answer in answers if answer.cookie), "")
    console.print(f"Set-Cookie: {cookie}")
    places = {answer.backend for answer in answers}
    nodes = sorted({answer.node for answer in answers})
    kept = bool(cookie) and len(places) == 1 and all(answer.good for answer in answers)
    happened.check(f"12 requests with it, through nodes {' '.join(nodes)}, all met {' '.join(sorted(places))}", kept)
    happened.facts["cookie"] = cookie


def _rewriting(console: Console, happened: Happened, array: Array) -> None:
    console.rule("The page, before and after")
    backend = next(iter(BACKENDS.values()))
    before = array.client.run("curl", "-s", "-H", f"Host: {SITE}", f"http://{backend}/")
    through = ("curl", "-s", "--cacert", str(array.folder / "site.crt"), "--resolve", f"{SITE}:443:{VIP}")
    after = array.client.run(*through, f"https://{SITE}/")
    packed = array.client.run(*through, "--compressed", f"https://{SITE}/")
    _show_page(console, before, after)
    rewritten = after.count(f"https://{CDN}/")
    # Absolute, rooted and relative URLs of the images became absolute ones of the CDN: take those away on both sides.
    starts = re.compile(rf"(https://({CDN}|{SITE}))?/?(?=(images|static)/)")
    happened.check(f"{rewritten} URLs lead to the CDN now", rewritten > 0)
    happened.check("and nothing else changed", starts.sub("", after) == starts.sub("", before))
    happened.check("the same page when the back end sends it gzip-coded", packed == after)
    happened.facts["rewritten_urls"] = rewritten


def _show_page(console: Console, before: str, after: str) -> None:
    for line in difflib.unified_diff(before.splitlines(), after.splitlines(), "back end", "client", n=0, lineterm=""):
        style = {"-": "red", "+": "green"}.get(line[:1], "dim")
        console.print(line, style=style, markup=False)


def _direct_return(console: Console, happened: Happened, array: Array, owner: str, answers: list[Answer]) -> None:
    console.rule("Direct return")
    array.ask(array.load(count=60, path="/large.bin", threads=3))
    status = array.status(owner) or {}
    table = Table(title=f"what {owner}, the scheduler, forwarded", title_justify="left")
    for head in ("to worker", "packets", "octets of requests"):
        table.add_column(head, justify="left" if head == "to worker" else "right")
    others = 0
    for name, worker in status["scheduler"]["workers"].items():
        here = " (itself)" if name == owner else ""
        others += 0 if here else worker["octets"]
        table.add_row(name + here, str(worker["packets"]), str(worker["octets"]))
    console.print(table)
    through = array.responses_through(owner)
    arrived = array.responses_through("client")
    happened.check(f"the client received {arrived} octets of responses from the VIP", arrived > 60 * (2 << 20))
    happened.check(f"requests for other workers passed it: {others} octets", others > 0)
    happened.check(f"of their responses (60 files of 2 MiB among them) {through} octets passed it", through == 0)
    happened.facts["responses_through_scheduler_bytes"] = through


def _takeover(console: Console, happened: Happened, array: Array, owner: str) -> None:
    console.rule("Takeover")
    clients = array.start_clients(array.load(seconds=6.0, threads=4, pause_s=0.01, timeout_s=3.0))
    wait_for(lambda: len(clients.so_far()) > 100, "traffic")
    killed = array.kill_node(owner)
    console.print(f"SIGKILL to every process of {owner} while 4 clients go on asking.")
    successor = wait_for(
        lambda: next((name for name in array.owners() if name != owner), None), "a successor", 15, 0.002
    )
    took = time.monotonic() - killed
    answers = clients.answers(timeout_s=30)
    failed = [answer for answer in answers if not answer.good]
    after = [answer for answer in answers if answer.good and answer.began > killed + took]
    console.print(_answer_table(f"{len(after)} answers after {successor} took over", after))
    happened.check(f"{successor} owns {VIP} {took:.3f} s after the kill", True)
    happened.check(f"{len(answers)} requests during it, {len(failed)} failed", bool(after))
    last = max((answer.ended - killed for answer in failed), default=0.0)
    if failed:
        console.print(f"  the failed ones were with {owner} itself, the last {last:.2f} s after the kill, such as:")
        console.print(f"  {failed[0].error or failed[0].status}", markup=False)
    survivors = set(array.nodes) - {owner}
    happened.check(f"the others serve: {' '.join(sorted(survivors))}", {answer.node for answer in after} == survivors)
    late = [answer for answer in failed if answer.began > killed + 3.0]
    happened.check("none failed from three seconds after the kill on", not late)
    happened.facts |= {
        "owner_after": successor,
        "takeover_seconds": round(took, 3),
        "requests": len(answers),
        "failed": len(failed),
    }


def _look_inside(console: Console, happened: Happened, array: Array) -> None:
    console.rule("Look inside")
    client = array.client.namespace
    owner = array.owner()
    happened.check(f"the kernel has taken the VIP from the killed node: {owner} alone has it", True)
    node = array.host(owner).namespace
    password = (array.folder / "manhole.password").read_text().strip()
    console.print(array.host(owner).run("curl", "-s", "http://127.0.0.1:9080/tables"), markup=False)
    for line in (
        f"ip netns exec {client} curl -si http://{VIP}/",
        f"ip netns exec {client} curl -si --cacert {array.folder}/site.crt --resolve {SITE}:443:{VIP} https://{SITE}/",
        f"ip netns exec {node} curl -s http://127.0.0.1:9080/status",
        f"ip netns exec {node} ssh -p 4722 -o StrictHostKeyChecking=no admin@127.0.0.1    (password: {password})",
        f"tail -f {array.folder}/*.log",
    ):
        console.print(f"  {line}", markup=False, soft_wrap=True)


# One node on loopback

_STANDALONE = """
[array]
name = "demo"
[worker]
expose = true
[services.http]
address = "127.0.0.1"
port = {http}
[services.https]
address = "127.0.0.1"
port = {https}
tls = {{ certificate = "site.crt", key = "site.key" }}
[pools.web]
check = {{ kind = "http", path = "/health", interval = "300ms" }}
persistence = {{ cookie = "LBARRAY" }}
[pools.web.backends]
{backends}
[cdn]
host = "{cdn}"
paths = ["/static/", "/images/"]
own_hosts = ["{site}"]
[console]
status = "127.0.0.1:{status}"
"""


def _standalone(console: Console, happened: Happened, once: bool) -> None:
    folder = Path(tempfile.mkdtemp(prefix="lbarray-demo-"))
    running: list[subprocess.Popen[bytes]] = []
    try:
        _run_standalone(console, happened, once, folder, running)
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


def _run_standalone(
    console: Console, happened: Happened, once: bool, folder: Path, running: list[subprocess.Popen[bytes]]
) -> None:
    ports = _free_ports(6)
    write_certificate(folder, SITE, "127.0.0.1")
    backends = dict(zip(BACKENDS, ports[3:], strict=True))
    log = (folder / "log").open("ab")
    for name, port in backends.items():
        write_site(folder / name, name)
        web = ["-n", "--pidfile=", "web", "--path", str(folder / name), "--listen", f"tcp:{port}:interface=127.0.0.1"]
        running.append(subprocess.Popen([*twistd(), *web], stdout=log, stderr=log, cwd=folder))
    http, https, status = ports[:3]
    (folder / "demo.toml").write_text(
        _STANDALONE.format(
            http=http,
            https=https,
            status=status,
            cdn=CDN,
            site=SITE,
            backends="\n".join(f'{name} = {{ address = "127.0.0.1:{port}" }}' for name, port in backends.items()),
        )
    )
    node = [*twistd(), "-n", "--pidfile=", "lbarray", "--config", str(folder / "demo.toml")]
    running.append(subprocess.Popen(node, stdout=log, stderr=log, cwd=folder))

    def ask(tls: bool, **more: Any) -> list[Answer]:
        load = Load(
            host="127.0.0.1",
            port=https if tls else http,
            name=SITE,
            authority=str(folder / "site.crt") if tls else "",
            **more,
        )
        command = [sys.executable, "-m", "lbarray.testbed.traffic", load.to_json()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return read_answers(done.stdout)

    def ready() -> bool:
        answers = ask(False, count=6, path="/health")
        return len(answers) == 6 and all(answer.good for answer in answers)

    try:
        wait_for(ready, "the node and its back ends", 20, 0.3)
    except SystemRefused as error:
        raise SystemRefused(error.tried, detail=(folder / "log").read_text()[-3000:]) from None
    console.rule("Requests")
    answers = ask(False, count=60, threads=3) + ask(True, count=60, threads=3, per_connection=10)
    console.print(_answer_table("60 over HTTP, 60 over keepalive HTTPS connections of 10", answers))
    happened.check("all answered with success", len(answers) == 120 and all(answer.good for answer in answers))
    happened.check("every back end got some", {answer.backend for answer in answers} == set(BACKENDS))
    pinned = ask(True, count=12, keep_cookies=True)
    cookie = next((answer.cookie for answer in pinned if answer.cookie), "")
    console.print(f"Set-Cookie: {cookie}")
    happened.check("12 requests with the cookie met one back end", len({answer.backend for answer in pinned}) == 1)
    console.rule("The page, before and after")
    before = (folder / next(iter(BACKENDS)) / "index.html").read_text()
    after = _get(http)
    _show_page(console, before, after)
    rewritten = after.count(f"https://{CDN}/")
    happened.check(f"{rewritten} URLs lead to the CDN now", rewritten > 0)
    happened.facts |= {
        "owner_before": None,
        "owner_after": None,
        "takeover_seconds": None,
        "requests": len(answers),
        "failed": sum(not answer.good for answer in answers),
        "responses_through_scheduler_bytes": None,
        "per_node": dict(Counter(answer.node for answer in answers)),
        "per_backend": dict(sorted(Counter(answer.backend for answer in answers).items())),
        "rewritten_urls": rewritten,
        "cookie": cookie,
    }
    console.rule("Look inside")
    console.print(f"  curl -si http://127.0.0.1:{http}/\n  curl -s http://127.0.0.1:{status}/tables", markup=False)
    if not once:
        console.print("\nThe node stays up until Ctrl-C.")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            console.print("\nStopping.")


def _get(port: int) -> str:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/", headers={"Host": SITE})
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def _free_ports(count: int) -> list[int]:
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
