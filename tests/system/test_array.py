"""A whole array in network namespaces: what the product promises, with real daemons and real packets."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from typing import Any
from urllib.parse import urlencode

from openapi_spec_validator import OpenAPIV31SpecValidator
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.testbed.namespaces import remove_leftovers, run
from lbarray.testbed.nodes import BACKENDS, CDN, NODES, SITE, VIP, Array, twistd, wait_for
from tests.system.sharing import close, shared

NEEDED = ("ip", "nft", "nginx", "curl", "clang")


def need_namespaces() -> None:
    """Skip without root or programs, unless system tests are required."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    why = "not root" if os.geteuid() != 0 else f"missing: {', '.join(missing)}" if missing else ""
    if why:
        if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
            raise AssertionError(f"system tests are required: {why}")
        raise SkipTest(why)


def ready_array() -> Array:
    """An array that several tests look at."""
    array = Array().__enter__()
    array.wait_ready()
    return array


class ArrayTests(SynchronousTestCase):
    """Three nodes, one VIP, three back ends; one array for all of these tests."""

    def setUp(self) -> None:
        need_namespaces()
        self.it = shared(ready_array)

    def curl(self, *arguments: str, tls: bool = True) -> str:
        """The answer of the site to curl, in the client's namespace."""
        url = arguments[-1] if arguments and arguments[-1].startswith("/") else "/"
        options = [each for each in arguments if each != url]
        scheme, port = ("https", 443) if tls else ("http", 80)
        return self.it.client.run(
            "curl", "-s", "-m", "5", "--cacert", str(self.it.folder / "site.crt"), "--resolve",
            f"{SITE}:{port}:{VIP}", *options, f"{scheme}://{SITE}{url}",
        )  # fmt: skip

    def test_highest_priority_owns(self) -> None:
        """One node has the VIP on its interface: the one of the highest priority."""
        self.assertEqual(self.it.owners(), ["a"])
        for name in NODES:
            status = self.it.status(name)
            assert status is not None
            self.assertEqual(status["failover"]["routers"]["main"]["owner"], NODES["a"])
            self.assertEqual(status["membership"]["members"]["a"]["owned"], [VIP])
            self.assertEqual(set(status["membership"]["members"]), set(NODES))

    def test_every_worker_serves(self) -> None:
        """Plain and TLS requests reach every node and every back end, and all are answered."""
        for tls in (False, True):
            answers = self.it.ask(self.it.load(count=60, threads=2, tls=tls))
            self.assertEqual(len(answers), 60)
            self.assertEqual([answer for answer in answers if not answer.good], [])
            self.assertEqual({answer.node for answer in answers}, set(NODES))
            self.assertEqual({answer.backend for answer in answers}, set(BACKENDS))

    def test_tls_client_stays_on_its_worker(self) -> None:
        """All TLS connections of one address go to one worker."""
        answers = self.it.ask(self.it.load(count=10, tls=True, sources=("10.77.0.203",)))
        self.assertEqual(len({answer.node for answer in answers}), 1)

    def test_requests_of_a_connection_are_scheduled_apart(self) -> None:
        """One keepalive connection, several back ends."""
        answers = self.it.ask(self.it.load(count=12, per_connection=12, tls=True))
        self.assertEqual(Counter(answer.backend for answer in answers), dict.fromkeys(BACKENDS, 4))
        self.assertEqual(len({answer.node for answer in answers}), 1)

    def test_cookie(self) -> None:
        """A client with its cookie meets its back end through every worker."""
        answers = self.it.ask(self.it.load(count=12, keep_cookies=True))
        self.assertEqual(len({answer.backend for answer in answers}), 1)
        self.assertGreater(len({answer.node for answer in answers}), 1)

    def test_direct_return(self) -> None:
        """The scheduler forwards other workers' requests and sees no octet of their responses."""
        owner = self.it.owner()
        before = self.it.status(owner)
        arrived = self.it.responses_through("client")
        answers = self.it.ask(self.it.load(count=20, path="/large.bin", threads=2))
        after = self.it.status(owner)
        assert before is not None and after is not None
        others = {answer.node for answer in answers} - {owner}
        self.assertEqual(others, set(NODES) - {owner})
        for name in others:
            forwarded = [status["scheduler"]["workers"][name]["packets"] for status in (before, after)]
            self.assertGreater(forwarded[1], forwarded[0])
        self.assertEqual(self.it.responses_through(owner), 0)
        # The same counter at the client does see them.
        self.assertGreater(self.it.responses_through("client") - arrived, 20 * (2 << 20))

    def test_rewriting(self) -> None:
        """The page's static content is at the CDN; take that away and it is the back end's page."""
        page = self.curl("/")
        self.assertEqual(page.count(f"https://{CDN}/"), 10)
        original = (self.it.folder / "w1" / "site" / "index.html").read_text()
        starts = re.compile(rf"(https://({CDN}|{SITE}))?/?(?=(images|static)/)")
        self.assertEqual(starts.sub("", page), starts.sub("", original))
        self.assertEqual(self.curl("--compressed", "/"), page)
        self.assertIn("src='/static/not-a-tag.png'".replace("'", '"'), page)

    def test_other_content_is_untouched(self) -> None:
        """A file that is no page arrives octet for octet."""
        self.assertEqual(self.curl("/static/site.js"), (self.it.folder / "w1/site/static/site.js").read_text())

    def test_head_and_post(self) -> None:
        """HEAD has no content, POST has its own."""
        self.assertIn("HTTP/2 200", self.curl("-I", "/whoami.html"))
        self.assertIn("HTTP/1.1 200 OK", self.curl("-I", "--http1.1", "/whoami.html"))
        self.assertIn("ordered from", self.curl("-d", "amount=2", "/order"))

    def test_back_end_down_and_up(self) -> None:
        """A dead back end gets no requests, its clients a new cookie; when it lives again it has its share."""
        name = "w3"
        self.it.host(name).kill()

        def states() -> set[str]:
            found = set()
            for node in NODES:
                status = self.it.status(node)
                found.add(status["pools"]["web"][name]["state"] if status else "?")
            return found

        wait_for(lambda: states() == {"down"}, f"{name} to be down", 10, 0.1)
        answers = self.it.ask(self.it.load(count=30, keep_cookies=True))
        self.assertEqual([answer for answer in answers if not answer.good], [])
        self.assertNotIn(name, {answer.backend for answer in answers})
        self.it.start_backend(name)
        wait_for(lambda: states() == {"up"}, f"{name} to be up", 10, 0.1)
        self.assertIn(name, {answer.backend for answer in self.it.ask(self.it.load(count=30))})

    def test_status_tables_and_metrics(self) -> None:
        """What an operator and Prometheus read over HTTP."""
        tables = self.it.host("a").run("curl", "-s", "http://127.0.0.1:9080/tables")
        self.assertIn("owner", tables)
        metrics = self.it.host("a").run("curl", "-s", "http://127.0.0.1:9080/metrics")
        self.assertIn('lbarray_vip_owner{router="main",vip="10.77.0.100"} 1.0', metrics)
        self.assertIn('lbarray_backend_up{backend="w1",pool="web"} 1.0', metrics)

    #: Values for the arguments of questions.
    ARGUMENTS = {"client": "10.77.0.9", "port": "4000", "worker": "b", "limit": "10"}

    def test_every_path(self) -> None:
        """The OpenAPI document of a real node is valid, and each of its paths does what it says."""
        document = self.asked("GET", "/openapi.json")[1]
        OpenAPIV31SpecValidator(document).validate()
        for path, item in document["paths"].items():
            for method, operation in item.items():
                self.exercise(method.upper(), path, operation)

    def exercise(self, method: str, path: str, operation: Any) -> None:
        if path == "/live":  # it never ends: tested where a page listens
            return
        parameters = {each["name"]: each["required"] for each in operation.get("parameters", ())}
        self.assertLessEqual(parameters.keys(), self.ARGUMENTS.keys(), f"{path}: say here what to ask with")
        query = urlencode({name: self.ARGUMENTS[name] for name in parameters})
        if method == "GET":
            status, said = self.asked("GET", f"{path}?{query}" if query else path)
            self.assertEqual(status, 200, f"{path}: {said}")
            return
        # Every action judges what it is given before it does anything, and says so in the one shape.
        status, said = self.asked("POST", path, {"no-such-argument": 1})
        self.assertEqual((status, said["error"]["reason"]), (400, "bad_argument"), path)
        needed = operation["requestBody"]["content"]["application/json"]["schema"]["required"]
        if needed:
            status, said = self.asked("POST", path, {})
            self.assertEqual((status, said["error"]["reason"]), (400, "bad_argument"), path)
            self.assertIn(needed[0], said["error"]["message"])

    def asked(self, method: str, target: str, content: object = None) -> tuple[int, Any]:
        """What node b answers over its Unix socket."""
        command = ["curl", "-s", "-w", "\\n%{http_code}", "-X", method, "--max-time", "20"]
        if content is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(content)]
        command += ["--unix-socket", f"{self.it.folder}/state/b.sock", f"http://localhost{target}"]
        body, _, status = self.it.host("b").run(*command).rpartition("\n")
        return int(status), json.loads(body) if body[:1] == "{" else body


class TakeoverTests(SynchronousTestCase):
    """The scheduler dies, and is back; then it is stopped for good."""

    def setUp(self) -> None:
        need_namespaces()
        self.it = shared(ready_array)

    def test_1_killed_scheduler(self) -> None:
        """SIGKILL under load: another owns the VIP, only requests of the dead worker fail, then none."""
        array = self.it
        clients = array.start_clients(array.load(seconds=5.0, threads=3, pause_s=0.01, timeout_s=3.0))
        wait_for(lambda: len(clients.so_far()) > 50, "traffic")
        killed = array.kill_node("a")
        wait_for(lambda: array.owners() and array.owners() != ["a"], "a successor", 5, 0.01)
        answers = clients.answers(30)
        failed = [answer for answer in answers if not answer.good]
        self.assertEqual([answer for answer in failed if answer.began > killed + 3.0], [])
        after = [answer for answer in answers if answer.good and answer.began > killed + 1.0]
        self.assertEqual({answer.node for answer in after}, {"b", "c"})
        # The kernel takes the VIP from the dead node, whose daemon cannot.
        self.assertEqual(array.owner(), "b")
        # And when it starts again, it finds what it left, and takes its place.
        array.start_node("a")
        wait_for(lambda: array.owners() == ["a"], "the first owner to return", 15, 0.1)
        array.wait_ready()
        self.assertIn("undone, left by a node that was killed", array.log_of("a"))
        self.assertEqual([a for a in array.ask(array.load(count=30)) if not a.good], [])

    def test_2_orderly_stop(self) -> None:
        """SIGTERM: the VIP is handed over at once, and nothing is left on the machine."""
        self.addCleanup(close)
        array = self.it
        clients = array.start_clients(array.load(seconds=3.0, threads=2, pause_s=0.01, timeout_s=3.0))
        wait_for(lambda: len(clients.so_far()) > 30, "traffic")
        host = array.host("a")
        for pid in host.pids():
            os.kill(pid, 15)
        wait_for(lambda: array.owners() == ["b"], "the successor", 5, 0.01)
        answers = clients.answers(30)
        failed = [answer for answer in answers if not answer.good]
        self.assertLessEqual(len(failed), 3, failed)
        wait_for(lambda: not host.pids(), "the node to end", 10)
        self.assertNotIn(VIP, host.run("ip", "addr"))
        self.assertEqual(host.run("tc", "filter", "show", "dev", "eth0", "ingress").strip(), "")
        self.assertEqual(host.run("cat", "/proc/sys/net/ipv4/conf/all/arp_ignore").strip(), "0")


class RefusalTests(SynchronousTestCase):
    """What cannot work says why in one line, and ends with a code that is not 0."""

    def setUp(self) -> None:
        need_namespaces()

    def refused(self, array: Array, name: str = "a", **more: Any) -> str:
        process = array.start_node(name, **more)
        self.assertNotEqual(process.wait(timeout=20), 0)
        text = array.log_of(name)
        self.assertNotIn("Traceback", text)
        return text

    def test_refusals(self) -> None:
        """Wrong address, taken ports, missing certificate, wrong key, no eBPF: each in its own words."""
        with Array(nodes={"a": NODES["a"]}) as array:
            array.wait_ready()
            host = array.host("a")
            # A second daemon of the same node must not touch what the first one stands on.
            self.assertIn("of the same node runs already", self.refused(array))
            self.assertEqual(array.owners(), ["a"])
            for pid in host.pids():
                os.kill(pid, 15)
            wait_for(lambda: not host.pids(), "the node to end", 10)

            with (array.folder / "web.log").open("wb") as log:
                host.start("python3", "-m", "http.server", "80", log=log)
            wait_for(lambda: ":80 " in host.run("ss", "-ltn"), "a web server")
            self.assertIn("ss -ltnp 'sport = :80'", self.refused(array))
            host.kill()

            config = array.config.read_text()
            other = array.folder / "other.toml"
            other.write_text(config.replace(f'"{NODES["a"]}"', '"10.77.0.9"'))
            self.assertIn("does not have its address 10.77.0.9", self.refused(array, config=other))

            other.write_text(config.replace("site.crt", "nosuch.crt"))
            text = self.refused(array, config=other)
            self.assertIn("services.https.tls.certificate", text)
            self.assertIn("nosuch.crt", text)

            (array.folder / "other.key").write_text((array.folder / "site.key").read_text())
            run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", f"{array.folder}/other.key"])
            other.write_text(config.replace("site.key", "other.key"))
            self.assertIn("the key belongs to another certificate", self.refused(array, config=other))

            # Without CAP_BPF and CAP_SYS_ADMIN, but with all else: the plane that needs neither, unless one is named.
            drop = ("setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon", *twistd(), "-n", "--pidfile=", "lbarray")
            with (array.folder / "a.log").open("ab") as log:
                host.start(*drop, "--config", str(array.config), "--node", "a", log=log)
                wait_for(lambda: "packet plane: packet; not " in array.log_of("a"), "the packet plane")
                host.kill()
                other.write_text(config.replace("[scheduler]", '[scheduler]\nplane = "tc"'))
                process = host.start(*drop, "--config", str(other), "--node", "a", log=log)
            self.assertNotEqual(process.wait(timeout=20), 0)
            self.assertIn("CAP_BPF", array.log_of("a"))

    def test_wrong_key(self) -> None:
        """A node whose shared key differs says so and ends; the others go on without it."""
        nodes = dict(list(NODES.items())[:2])
        with Array(nodes=nodes) as array:
            array.wait_ready()
            host = array.host("b")
            host.kill()
            wait_for(lambda: array.owners() == ["a"], "a alone", 10, 0.1)
            wrong = array.folder / "wrong.key"
            wrong.touch(mode=0o600)
            wrong.write_text("0" * 64 + "\n")
            other = array.folder / "other.toml"
            other.write_text(array.config.read_text().replace("array.key", "wrong.key"))
            text = self.refused(array, "b", config=other)
            self.assertEqual(len(re.findall("shared key", text)), 1, text)
            self.assertIn("sha256sum", text)
            self.assertIn("wrong shared key", array.log_of("a"))
            self.assertEqual(array.owner(), "a")
            self.assertEqual([a for a in array.ask(array.load(count=10)) if not a.good], [])


class ManholeTests(SynchronousTestCase):
    """The prompt inside the daemon."""

    def setUp(self) -> None:
        need_namespaces()

    def test_tables(self) -> None:
        """By key over SSH: the four names print tables."""
        with Array(nodes={"a": NODES["a"]}, edit=_with_key) as array:
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(array.folder / "id")])
            (array.folder / "id.pub").rename(array.folder / "authorized_keys")
            host = array.host("a")
            host.kill()
            array.start_node("a")
            array.wait_ready()
            ssh = [
                "ssh", "-tt", "-p", "4722", "-i", str(array.folder / "id"), "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "admin@127.0.0.1",
            ]  # fmt: skip
            done = subprocess.run(
                host.inside(*ssh),
                input=b"array\rpools\rservices\rnode\r",
                capture_output=True,
                timeout=30,
                check=False,
            )
            text = done.stdout.decode(errors="replace")
            for word in ("10.77.0.1", "w2", "443", "owns", VIP):
                self.assertIn(word, text, done.stderr)


def _with_key(text: str) -> str:
    return text.replace('password_file = "manhole.password"', 'authorized_keys = "authorized_keys"')


class RoleTests(SynchronousTestCase):
    """Parts of a node, alone."""

    def setUp(self) -> None:
        need_namespaces()

    def test_scheduler_and_workers(self) -> None:
        """A scheduler that serves nobody itself, before workers that never own a VIP."""
        with Array() as array:
            for name in NODES:
                array.host(name).kill()
            roles = {"a": "worker", "b": "scheduler", "c": "worker"}
            for name, role in roles.items():
                array.start_node(name, role=role)
            wait_for(lambda: array.owners() == ["b"], "the scheduler to own the VIP", 15, 0.1)

            def rows() -> bool:
                status = array.status("b")
                workers = status["scheduler"]["workers"] if status else {}
                shares = {name: worker["rows"] for name, worker in workers.items() if worker["rows"]}
                # Of thirty connections each gets one only where none is at its very beginning.
                return shares.keys() == {"a", "c"} and 4 * min(shares.values()) > max(shares.values())

            wait_for(rows, "rows for both workers", 30, 0.1)
            for tls in (False, True):
                answers = array.ask(array.load(count=30, tls=tls))
                self.assertEqual([answer for answer in answers if not answer.good], [])
                self.assertEqual({answer.node for answer in answers}, {"a", "c"})
            self.assertEqual(array.owners(), ["b"])

    def test_rewriting_proxy(self) -> None:
        """``twistd lbarray rewrite`` in front of one site, without a file."""
        with Array(nodes={"a": NODES["a"]}) as array:
            host = array.host("a")
            host.kill()
            command = ["-n", "--pidfile=", "lbarray", "rewrite", "--listen", "10.77.0.1:8080"]
            command += ["--site", f"{BACKENDS['w1']}:80", "--cdn", CDN, "--path", "/images/"]
            with (array.folder / "a.log").open("ab") as log:
                host.start(*twistd(), *command, log=log)

            def page() -> str:
                return array.client.run("curl", "-s", "http://10.77.0.1:8080/about.html", check=False)

            self.assertIn(f"<img src=https://{CDN}/images/spade.png>", wait_for(page, "the page", 10, 0.1))


class LeftoverTests(SynchronousTestCase):
    """The testbed cleans up after those that could not."""

    def setUp(self) -> None:
        need_namespaces()

    def test_removed(self) -> None:
        """A namespace of a dead process goes, one of a living process stays."""
        dead = subprocess.Popen(["true"])
        dead.wait()
        gone, mine = f"lba-{dead.pid}-x", f"lba-{os.getpid()}-keep"
        for name in (gone, mine):
            run(["ip", "netns", "add", name])
        try:
            self.assertIn(gone, remove_leftovers())
            self.assertIn(mine, json.dumps(run(["ip", "netns", "list"])))
        finally:
            run(["ip", "netns", "del", mine])
