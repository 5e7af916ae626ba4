"""Protocols of others: the examples of the documentation, run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lbarray.backends.connections import IdleConnections
from lbarray.config.load import parse
from lbarray.errors import BadConfig
from lbarray.interfaces import IServiceProtocol
from lbarray.node.worker_parts import make_rewriting, worker_settings
from lbarray.telemetry.counters import Counters
from lbarray.values import Outcome
from lbarray.worker.plugins import Http, service_protocol
from tests.worker.engine import Backend, Engine, closed_port

reactor: Any = global_reactor
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ProtocolTests(SynchronousTestCase):
    """How a service's protocol is found."""

    def test_provided(self) -> None:
        """HTTP and the example provide the interface whole."""
        for protocol in (Http(), example("relay").relay):
            verifyObject(IServiceProtocol, protocol)

    def test_unknown(self) -> None:
        """A protocol that nobody provides is named with the key that asks for it."""
        error = self.assertRaises(BadConfig, service_protocol, "imap", "services.mail.protocol")
        self.assertEqual(error.problems[0].key, "services.mail.protocol")
        self.assertIn('"http"', error.problems[0].accepted)

    def test_installed(self) -> None:
        """Put into a folder twisted/plugins it is found by its name, in another process as well."""
        folder = Path(self.mktemp()) / "twisted" / "plugins"
        folder.mkdir(parents=True)
        (folder / "relay_plugin.py").write_text((EXAMPLES / "relay.py").read_text())
        found = subprocess.run(
            [
                sys.executable,
                "-c",
                "from lbarray.worker.plugins import service_protocol as f; print(f('relay').factory)",
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{folder.parents[1].resolve()}:{os.getcwd()}:{EXAMPLES.parents[1]}"},
            check=True,
        )
        self.assertIn("ImapFactory", found.stdout)

    def test_configured(self) -> None:
        """The configuration's protocol is that of the listener."""
        config = parse(
            '[services.web]\naddress = "127.0.0.1"\nport = 80\nprotocol = "http"\n'
            '[pools.web.backends]\na = { address = "127.0.0.1:81" }\n'
        )
        rewriting = make_rewriting(reactor=Clock(), config=config, counters=Counters())
        settings = worker_settings(config=config, node_name="a", rewriting=rewriting)
        self.assertEqual(settings["listeners"][0].protocol.name, "http")


class RelayTests(Engine):
    """The relay of docs/examples/relay.py."""

    make_factory = staticmethod(lambda **settings: example("relay").ImapFactory(**settings))

    async def test_both_ways(self) -> None:
        """What either side says reaches the other, and no octet of it is understood on the way."""

        def script(backend: Backend, data: bytes) -> None:
            backend.transport.write(b"* OK IMAP4 hi" if data.startswith(b"a1") else data)

        self.serve(script)
        client = await self.connect()
        client.transport.write(b"a1 LOGIN x y\r\n")
        await client.until(lambda: client.got == b"* OK IMAP4 hi")
        self.assertEqual(self.servers[0].asked, b"a1 LOGIN x y\r\n")
        client.transport.loseConnection()
        while self.servers[0].open or self.factory.connections:
            await deferLater(reactor, 0.005)
        self.assertEqual(self.requests.outcomes, [Outcome.ANSWERED])

    async def test_nobody(self) -> None:
        """Without a back end the connection ends."""
        self.start([])
        client = await self.connect()
        await client.until(lambda: client.closed)

    async def test_unreachable(self) -> None:
        """A back end that takes no connection: another one is asked."""
        self.serve(lambda backend, data: backend.transport.write(data))
        self.requests.ports[:] = [closed_port(self), self.requests.ports[0]]
        self.requests.idle.append(IdleConnections(max_idle=9, idle_timeout_s=9))
        client = await self.connect()
        client.transport.write(b"a1 NOOP")
        await client.until(lambda: client.got == b"a1 NOOP")
        self.assertEqual(self.requests.outcomes, [Outcome.CONNECT_FAILED])

    async def test_silence(self) -> None:
        """The sweep ends a relay in which nobody speaks."""
        self.serve(lambda backend, data: None)
        client = await self.connect()
        client.transport.write(b"x")
        while not self.servers[0].asked:
            await deferLater(reactor, 0.005)
        for connection in self.factory.connections:
            connection.deadline = 0.0
        self.factory.sweep()
        await client.until(lambda: client.closed)


class EmbeddedTests(SynchronousTestCase):
    """The application of docs/examples/embedded.py."""

    def test_serves(self) -> None:
        """It answers through its worker, which says who asked."""
        import socket

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "embedded.py"), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.make_folder(),
            env={**os.environ, "PYTHONPATH": str(EXAMPLES.parents[1])},
        )
        assert process.stdout is not None
        try:
            process.stdout.readline()
            for _ in range(50):
                try:
                    answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                    break
                except OSError:
                    time.sleep(0.05)
            self.assertEqual(answer, b'asked by for=127.0.0.1;proto=http;host="127.0.0.1:%d"\n' % port)
        finally:
            process.terminate()
            process.wait(10)
            process.stdout.close()

    def make_folder(self) -> str:
        folder = Path(self.mktemp())
        folder.mkdir()
        return str(folder)
