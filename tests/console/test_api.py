"""The HTTP API: who may ask what, and answers of one shape."""

from __future__ import annotations

import json
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from lbarray.console.access import Access
from lbarray.console.api import api_site
from tests.console.test_console import make_view

TOKEN = b"0123456789abcdef"
HERE = IPv4Address("TCP", "127.0.0.1", 50000)
ELSEWHERE = IPv4Address("TCP", "192.0.2.9", 50000)
UNIX = UNIXAddress(b"")


class Answer:
    """A response taken apart."""

    def __init__(self, octets: bytes) -> None:
        head, _, self.content = octets.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class ApiCase(SynchronousTestCase):
    """A site and one connection to it."""

    def setUp(self) -> None:
        self.heard: list[tuple[object, ...]] = []
        self.view = make_view(self.heard)

    def ask(
        self,
        method: str,
        target: str,
        *,
        peer: Any = HERE,
        content: object = None,
        raw: bytes | None = None,
        token: bytes | None = TOKEN,
        **fields: str,
    ) -> Answer:
        site = api_site(self.view, Access(token=token), Clock())
        protocol: Any = site.buildProtocol(peer)
        transport = StringTransport(peerAddress=peer)
        octets = raw if raw is not None else json.dumps(content).encode() if content is not None else b""
        lines = {"Host": "127.0.0.1:9080", "Connection": "close"}
        if octets:
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(octets))}
        lines |= {name.replace("_", "-"): value for name, value in fields.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        protocol.makeConnection(transport)
        protocol.dataReceived(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + octets)
        return Answer(transport.value())


class ReadingTests(ApiCase):
    """What loopback may read."""

    def test_status(self) -> None:
        """Everything as JSON, never cached."""
        answer = self.ask("GET", "/status")
        self.assertEqual((answer.status, answer.json["node"]), (200, "a"))
        self.assertEqual(answer.fields["cache-control"], "no-store")

    def test_elsewhere(self) -> None:
        """Other machines need the token to read."""
        self.assertEqual(self.ask("GET", "/status", peer=ELSEWHERE).status, 401)
        allowed = self.ask("GET", "/status", peer=ELSEWHERE, Authorization=f"Bearer {TOKEN.decode()}")
        self.assertEqual(allowed.status, 200)

    def test_foreign_host_field(self) -> None:
        """A name of another site that was made to mean 127.0.0.1 reads nothing (DNS rebinding)."""
        self.assertEqual(self.ask("GET", "/status", Host="evil.example:9080").status, 401)
        self.assertEqual(self.ask("GET", "/status", Host="localhost:9080").status, 200)

    def test_nowhere(self) -> None:
        """An unknown path is an error of the one shape, and says where to look."""
        answer = self.ask("GET", "/nothing")
        self.assertEqual((answer.status, answer.json["error"]["reason"]), (404, "not_found"))
        self.assertIn("/openapi.json", answer.json["error"]["message"])

    def test_wrong_method(self) -> None:
        """405 with what is allowed."""
        answer = self.ask("DELETE", "/status")
        self.assertEqual((answer.status, answer.fields["allow"]), (405, "GET"))

    def test_head(self) -> None:
        """HEAD has the length and no content."""
        answer = self.ask("HEAD", "/status")
        self.assertEqual((answer.status, answer.content), (200, b""))
        self.assertGreater(int(answer.fields["content-length"]), 100)


class QueryTests(ApiCase):
    """Questions."""

    def test_query(self) -> None:
        """Arguments come as a query, converted to their kinds; whoever may read may ask."""
        answer = self.ask("GET", "/queries/where?client=192.0.2.7&port=4000")
        self.assertEqual((answer.status, answer.json), (200, {"client": "192.0.2.7", "port": 4000}))

    def test_bad_argument(self) -> None:
        """The argument is named, with what is accepted."""
        answer = self.ask("GET", "/queries/where?client=192.0.2.7&port=x")
        self.assertEqual((answer.status, answer.json["error"]["reason"]), (400, "bad_argument"))
        self.assertIn("port", answer.json["error"]["message"])

    def test_a_change_is_no_query(self) -> None:
        """What changes something is not done by a GET."""
        self.assertEqual(self.ask("GET", "/queries/drain", peer=UNIX).status, 409)
        self.assertEqual(self.heard, [])


class ActionTests(ApiCase):
    """Changes."""

    def test_unix_socket(self) -> None:
        """Whoever may open the Unix socket may change things."""
        answer = self.ask("POST", "/actions/drain-backend", peer=UNIX, content={"pool": "web", "backend": "w1"})
        self.assertEqual((answer.status, answer.json["said"]), (200, "web/w1"))
        self.assertEqual(self.heard, [("web", "w1", True)])

    def test_token(self) -> None:
        """Over TCP the token is needed, the right one."""
        for given, status in (("", 401), ("Bearer wrong", 401), ("Basic " + TOKEN.decode(), 401)):
            self.assertEqual(self.ask("POST", "/actions/drain", content={}, Authorization=given).status, status)
        self.assertEqual(self.heard, [])
        answer = self.ask("POST", "/actions/drain", content={}, Authorization=f"Bearer {TOKEN.decode()}")
        self.assertEqual((answer.status, self.heard), (200, [(True,)]))

    def test_no_token_configured(self) -> None:
        """Without a token file no token helps, not even an empty one."""
        answer = self.ask("POST", "/actions/drain", content={}, token=None, Authorization="Bearer ")
        self.assertEqual((answer.status, self.heard), (401, []))

    def test_not_by_a_form(self) -> None:
        """What a form in a foreign page can send is refused, even over an open door."""
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answer = self.ask("POST", "/actions/drain", peer=UNIX, raw=b"{}", Content_Type=kind)
            self.assertIn(answer.status, (400, 415))
            self.assertEqual(self.heard, [])

    def test_refusal(self) -> None:
        """An action's own refusal is answered in the one shape."""
        answer = self.ask("POST", "/actions/drain-backend", peer=UNIX, content={"pool": "web", "backend": "w9"})
        self.assertEqual((answer.status, answer.json["error"]["reason"]), (409, "refused"))

    def test_arguments(self) -> None:
        """Missing, unknown and mistyped ones are named; nothing happens."""
        for content, word in (
            ({"pool": "web"}, "backend is missing"),
            ({"pool": "web", "backend": "w1", "x": 1}, "unknown argument 'x'"),
            ({"pool": "web", "backend": 7}, "accepted: text"),
            ({"pool": "web", "backend": "w1", "draining": 1}, "true or false"),
        ):
            answer = self.ask("POST", "/actions/drain-backend", peer=UNIX, content=content)
            self.assertEqual(answer.status, 400)
            self.assertIn(word, answer.json["error"]["message"])
        self.assertEqual(self.heard, [])

    def test_no_json(self) -> None:
        """Content that is no JSON object is refused."""
        for raw in (b"{", b"[1]", b"\xff"):
            self.assertEqual(self.ask("POST", "/actions/drain", peer=UNIX, raw=raw).status, 400)

    def test_unknown(self) -> None:
        """An unknown action: those that there are."""
        answer = self.ask("POST", "/actions/dran", peer=UNIX, content={})
        self.assertEqual(answer.status, 404)
        self.assertIn("drain-backend", answer.json["error"]["message"])

    def test_too_long(self) -> None:
        """Content beyond the limit is not read."""
        self.assertEqual(self.ask("POST", "/actions/drain", peer=UNIX, raw=b"x", Content_Length="9999999").status, 413)

    def test_logged(self) -> None:
        """Each change by hand is one line: what, with which arguments, by whom."""
        lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if "by hand" in (event.get("log_format") or ""):
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.ask("POST", "/actions/drain-backend", peer=UNIX, content={"pool": "web", "backend": "w1"})
        (line,) = lines
        for word in ("drain-backend", "pool=web", "backend=w1", "Unix socket"):
            self.assertIn(word, line)


class DocumentTests(ApiCase):
    """The OpenAPI document."""

    def test_every_action(self) -> None:
        """Each action and query is in it, with its arguments and whether they are needed."""
        document = self.ask("GET", "/openapi.json").json
        for action in self.view.actions:
            path = f"/actions/{action.name}" if action.changes else f"/queries/{action.name}"
            self.assertIn(path, document["paths"])
        schema = document["paths"]["/actions/drain-backend"]["post"]["requestBody"]["content"]["application/json"]
        self.assertEqual(schema["schema"]["required"], ["pool", "backend"])
        self.assertEqual(schema["schema"]["properties"]["draining"]["type"], "boolean")

    def test_valid(self) -> None:
        """It is OpenAPI 3.1, by another's judgement."""
        OpenAPIV31SpecValidator(self.ask("GET", "/openapi.json").json).validate()

    def test_every_page(self) -> None:
        """Every GET that it describes is answered with the type that it says."""
        document = self.ask("GET", "/openapi.json").json
        for path, item in document["paths"].items():
            if "get" in item and "parameters" not in item["get"]:
                answer = self.ask("GET", path)
                self.assertEqual(answer.status, 200, path)
                (kind,) = item["get"]["responses"]["200"]["content"]
                self.assertEqual(answer.fields["content-type"].partition(";")[0], kind)
