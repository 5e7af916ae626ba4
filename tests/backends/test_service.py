"""From a configuration to the back end of a request: routes, queue, repeats, persistence, changes while running."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lbarray.backends.health import Seen
from lbarray.backends.refusals import UnknownBackend
from lbarray.backends.service import BackendsService
from lbarray.config.load import parse
from lbarray.errors import BadConfig, BadInput
from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IAssignment, IRequestScheduler
from lbarray.node.backend_parts import backends_settings
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.durations import BACKENDS, durations_of, ends_of
from lbarray.values import BackendState, ClientAddress, Outcome, ServiceId
from tests.backends.parts import BAD, CLIENT, GOOD, get

HTTP = ServiceId(IPv4Address("127.0.0.1"), 8080)
BASE = '[services.http]\naddress = "127.0.0.1"\nport = 8080\n'
WEB = """
[pools.web]
{settings}
[pools.web.backends]
w1 = {{ address = "192.0.2.1:80" {each} }}
w2 = {{ address = "192.0.2.2:80" {each} }}
w3 = {{ address = "192.0.2.3:80" {each} }}
"""


class ServiceCase(SynchronousTestCase):
    """A service of one configuration."""

    def start(self, settings: str = "", *, each: str = "", more: str = "") -> BackendsService:
        self.clock = Clock()
        self.counters = Counters()
        self.service = BackendsService(
            reactor=self.clock, counters=self.counters, **self.settings(settings, each=each, more=more)
        )
        return self.service

    def settings(self, settings: str = "", *, each: str = "", more: str = "") -> dict[str, Any]:
        config = parse(BASE + WEB.format(settings=settings, each=each) + more)
        return backends_settings(reactor=self.clock, config=config, secret=b"s" * 32)

    def assign(self, request: RequestHead | None = None, client: ClientAddress = CLIENT) -> Any:
        return self.service.assign(HTTP, request or get(), client)

    def refused(self, request: RequestHead | None = None) -> BadInput:
        error: BadInput = self.assertRaises(BadInput, self.assign, request)
        return error

    def down(self, *names: str) -> None:
        for name in names:
            member = self.service.member("web", name)
            self.service.saw(self.service.pools["web"], member, BAD)


class AssignTests(ServiceCase):
    """The plain way."""

    def test_provides(self) -> None:
        """Service and assignment keep their contracts."""
        verifyObject(IRequestScheduler, self.start())
        verifyObject(IAssignment, self.assign())

    def test_counts(self) -> None:
        """A request is outstanding from its assignment to its end, which counts once."""
        self.start()
        assignment = self.assign()
        member = self.service.member("web", assignment.backend.name)
        self.assertEqual((member.outstanding, self.service.pools["web"].outstanding), (1, 1))
        assignment.finished(Outcome.ANSWERED)
        assignment.finished(Outcome.ANSWERED)
        self.assertEqual((member.outstanding, self.service.pools["web"].outstanding, member.requests), (0, 0, 1))

    def test_another(self) -> None:
        """A repeat goes to each other member, as often as the pool allows."""
        self.start("retries = 2")
        first = self.assign()
        second = first.another()
        third = second.another()
        self.assertEqual({each.backend.name for each in (first, second, third)}, {"w1", "w2", "w3"})
        self.assertIsNone(third.another())
        self.start("retries = 0")
        self.assertIsNone(self.assign().another())

    def test_nobody(self) -> None:
        """When all are down the client may come again."""
        self.start()
        self.down("w1", "w2", "w3")
        error = self.refused()
        self.assertEqual((error.status, error.reason), (503, "no_backend"))
        self.assertIn(b"Retry-After", dict(error.answer_fields))

    def test_no_connection_is_a_probe(self) -> None:
        """Who takes no connection goes down after as many failures as probes would need."""
        self.start('check = { kind = "tcp", fall = 2 }\neject = { consecutive = 0, error_percent = 0 }')
        pool = self.service.pools["web"]
        for member in pool.members.values():
            self.service.saw(pool, member, GOOD)
        for _ in range(6):
            assignment = self.assign()
            name = assignment.backend.name
            assignment.finished(Outcome.CONNECT_FAILED if name == "w1" else Outcome.ANSWERED)
        self.assertIs(pool.members["w1"].state, BackendState.DOWN)
        self.assertEqual({self.assign().backend.name for _ in range(6)}, {"w2", "w3"})

    def test_ejected(self) -> None:
        """Bad answers take a back end out without any check."""
        self.start("eject = { consecutive = 3 }")
        for _ in range(12):
            assignment = self.assign()
            failed = assignment.backend.name == "w2"
            assignment.finished(Outcome.SERVER_ERROR if failed else Outcome.ANSWERED)
        self.assertEqual({self.assign().backend.name for _ in range(6)}, {"w1", "w3"})
        status: Any = self.service.status()
        self.assertEqual(status["web"]["w2"]["circuit"], "open")
        self.assertEqual(self.counters.get("ejections", "web"), 1)

    def test_first_look_is_no_recovery(self) -> None:
        """A back end that is seen for the first time has its whole part at once; one that was down grows into it."""
        self.start('check = { kind = "tcp", fall = 1, rise = 1 }\nslow_start = "10s"')
        pool = self.service.pools["web"]
        one = pool.members["w1"]
        self.service.saw(pool, one, GOOD)
        self.assertEqual(one.share, 1.0)
        self.service.saw(pool, one, BAD)
        self.clock.advance(1.0)
        self.service.saw(pool, one, GOOD)
        self.assertEqual(one.share, 0.1)

    def test_who_joins_begins_slowly(self) -> None:
        """A back end that is added while others serve grows into its part; not one of the node's own beginning."""
        self.start('slow_start = "10s"')
        self.service.startService()
        self.addCleanup(self.service.stopService)
        members = self.service.pools["web"].members
        self.service.add("web", "early", "192.0.2.8", 80)
        self.clock.advance(10.0)
        self.service.add("web", "late", "192.0.2.9", 80)
        self.assertEqual([members[name].share for name in ("w1", "early", "late")], [1.0, 1.0, 0.1])
        self.service.hear({**self.service.snapshot()[-1], "what": "member", "backend": "told", "host": "192.0.2.10"})
        self.assertEqual(members["told"].share, 0.1)
        self.clock.advance(10.0)
        self.assertEqual(members["late"].share, 1.0)


class QueueTests(ServiceCase):
    """Requests that wait."""

    def fill(self, settings: str, count: int = 3) -> list[Any]:
        self.start(settings, each=", max_requests = 1")
        return [self.assign() for _ in range(count)]

    def test_connections_of_the_pool(self) -> None:
        """A pool's ``max_connections``: one that waits idle elsewhere goes for a new one, and no more are busy."""
        self.start("max_connections = 2")
        closed: list[str] = []

        class Connection:
            def __init__(self, name: str) -> None:
                self.name = name

            def close(self) -> None:
                closed.append(self.name)

        for name in ("first", "second"):
            assignment = self.assign()
            assignment.keep_connection(Connection(name))
            assignment.finished(Outcome.ANSWERED)
        third = self.assign()  # of three in turn, it is at the one that has no connection yet
        self.assertEqual((third.idle_connection(), len(closed)), (None, 1))
        self.assign()
        self.refused()

    def test_waits(self) -> None:
        """A request that finds no room gets it when there is some."""
        busy = self.fill("queue = 2")
        waiting = self.assign()
        told: list[Any] = []
        self.assertTrue(waiting.waiting)
        waiting.wait(told.append)
        busy[1].finished(Outcome.ANSWERED)
        self.assertEqual((told, waiting.waiting, waiting.backend), ([None], False, busy[1].backend))
        waiting.finished(Outcome.ANSWERED)
        self.assertEqual(self.service.pools["web"].outstanding, 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deadline(self) -> None:
        """After its time it is refused, and its place is free."""
        self.fill('queue = 1\nqueue_timeout = "2s"')
        told: list[Any] = []
        waiting = self.assign()
        waiting.wait(told.append)
        self.clock.advance(2)
        self.assertEqual([(error.status, error.reason) for error in told], [(503, "queue_timeout")])
        waiting.finished(Outcome.CLIENT_GONE)
        self.assertEqual(self.assign().waiting, True)

    def test_full_queue(self) -> None:
        """Beyond the queue nobody waits; without a queue nobody does."""
        self.fill("queue = 1")
        self.assign()
        self.assertEqual(self.refused().reason, "queue_displaced")
        self.fill("queue = 0")
        self.assertEqual(self.refused().reason, "backend_full")

    def test_client_gone(self) -> None:
        """Who leaves gives the place up and is not called any more."""
        busy = self.fill("queue = 1")
        told: list[Any] = []
        waiting = self.assign()
        waiting.wait(told.append)
        waiting.finished(Outcome.CLIENT_GONE)
        busy[0].finished(Outcome.ANSWERED)
        self.clock.advance(60)
        self.assertEqual((told, len(self.service.pools["web"].queue)), ([], 0))
        self.assertEqual(self.service.pools["web"].outstanding, 2)

    def test_priority(self) -> None:
        """A more important route's request displaces another, which hears of it."""
        more = '[[routes]]\npool = "web"\n[[routes]]\npath = "/pay"\npool = "web"\npriority = 5\n'
        self.start("queue = 1", each=", max_requests = 1", more=more)
        for _ in range(3):
            self.assign()
        told: list[Any] = []
        waiting = self.assign()
        waiting.wait(told.append)
        self.assertTrue(self.assign(get(b"/pay")).waiting)
        self.assertEqual([error.reason for error in told], ["queue_displaced"])

    def test_pool_limit(self) -> None:
        """The pool's own limit makes requests wait too."""
        self.start("queue = 1\nmax_requests = 2")
        self.assertEqual([self.assign().waiting for _ in range(3)], [False, False, True])


class RouteTests(ServiceCase):
    """Routes that do more than lead to a pool."""

    def test_answers(self) -> None:
        """Redirects and fixed answers need no back end."""
        self.start(
            more="""
[[routes]]
path = "/old"
redirect = { to = "https://{host}/new", status = 301 }
[[routes]]
path = "/closed"
answer = { status = 410, content = "gone", content_type = "text/html" }
"""
        )
        answer = self.assign(get(b"/old/x")).answer
        self.assertEqual((answer.status, dict(answer.fields)), (301, {b"Location": b"https://a.example/new"}))
        answer = self.assign(get(b"/closed")).answer
        self.assertEqual((answer.status, answer.content, answer.fields[0][1]), (410, b"gone", b"text/html"))
        self.assertEqual(self.refused().status, 404)

    def test_changes(self) -> None:
        """Path, fields of request and response, limits."""
        self.start(
            more="""
[[routes]]
path = "/app"
pool = "web"
rewrite = { prefix = "/" }
max_body = 10
response_timeout = "7s"
retry_statuses = [502, 503]
request_fields = { set = { X-Client = "{client}" }, remove = ["X-Debug"] }
response_fields = { remove = ["Server"], set = { X-Frame-Options = "DENY" } }
"""
        )
        request = get(b"/app/x?y", (b"X-Debug", b"1"))
        assignment = self.assign(request)
        self.assertEqual((assignment.target, request.target), (b"/x?y", b"/app/x?y"))
        self.assertEqual(request.fields, [(b"X-Client", b"192.0.2.200")])
        response = ResponseHead(200, [(b"server", b"nginx")])
        assignment.responded(response)
        self.assertEqual(response.fields, [(b"X-Frame-Options", b"DENY")])
        handling = assignment.handling
        self.assertEqual((handling.response_timeout_s, handling.retry_statuses), (7.0, {502, 503}))
        self.assertEqual(self.refused(get(b"/app", (b"Content-Length", b"11"))).status, 413)

    def test_names(self) -> None:
        """A route is named by its name, or by what it is for: its answers, its requests and what it refuses."""
        self.start(
            more="""
[[routes]]
pool = "web"
[[routes]]
name = "shop"
path = "/shop"
pool = "web"
max_body = 10
[[routes]]
host = "a.example"
path_regex = "^/v[0-9]"
answer = { status = 410 }
"""
        )
        self.assertEqual(self.assign().handling.route, "*/")
        self.assertEqual(self.assign(get(b"/shop")).handling.route, "shop")
        self.assertEqual(self.refused(get(b"/shop", (b"Content-Length", b"11"))).route, "shop")
        self.down("w1", "w2", "w3")
        self.assertEqual(self.refused(get(b"/shop")).route, "shop")

    def test_durations(self) -> None:
        """What a back end was given is counted by how it ended, and how long it took."""
        self.start()
        assignment = self.assign()
        self.clock.advance(0.3)
        assignment.finished(Outcome.TIMED_OUT)
        name = assignment.backend.name
        self.assertEqual(ends_of(self.counters, BACKENDS), {("web", name, "timed_out"): 1})
        self.assertEqual(durations_of(self.counters, BACKENDS)["web", name].total_s, 0.3)

    def test_repeated_unless_not_wanted(self) -> None:
        """When a back end dies, requests that may be repeated are; a route may say no."""
        self.start()
        self.assertTrue(self.assign().handling.retry_broken)
        self.start(more='[[routes]]\npool = "web"\nretry_broken = false\n')
        self.assertFalse(self.assign().handling.retry_broken)

    def test_split_and_mirror(self) -> None:
        """A canary that has nobody leaves its part to the others; copies go to the shadow."""
        self.start(
            more="""
[pools.canary.backends]
c1 = { address = "192.0.2.9:80" }
[pools.shadow.backends]
s1 = { address = "192.0.2.8:80" }
[[routes]]
split = { web = 50, canary = 50 }
mirror = { pool = "shadow" }
"""
        )
        assignments = [self.assign() for _ in range(60)]
        self.assertEqual({each.backend.pool for each in assignments}, {"web", "canary"})
        self.assertEqual({each.mirrors[0].backend.name for each in assignments}, {"s1"})
        self.assertEqual(self.service.pools["shadow"].outstanding, 60)
        self.service.drain("canary", "c1")
        self.assertEqual({self.assign().backend.pool for _ in range(30)}, {"web"})

    def test_split_keeps_sessions(self) -> None:
        """Who belongs to a back end of one pool stays in that pool, whatever the weights; clients without are split."""
        split = """
[pools.canary]
persistence = { cookie = "LB" }
backends = { c1 = { address = "192.0.2.9:80" } }
[[routes]]
split = { web = 50, canary = 50 }
"""
        self.start('persistence = { cookie = "LB" }', more=split)
        seen = set()
        for _ in range(40):
            first = self.assign()
            response = ResponseHead(200, [])
            first.responded(response)
            cookie = dict(response.fields)[b"Set-Cookie"].partition(b";")[0]
            back = {self.assign(get(b"/", (b"Cookie", cookie))).backend for _ in range(10)}
            self.assertEqual(back, {first.backend})
            seen.add(first.backend.pool)
        self.assertEqual(seen, {"web", "canary"})

    def test_services(self) -> None:
        """A route of other services does not exist for this one."""
        self.start(
            more="""
[services.admin]
address = "127.0.0.1"
port = 8081
[[routes]]
services = ["admin"]
pool = "web"
"""
        )
        self.assertEqual(self.refused().status, 404)

    def test_wrong_routes(self) -> None:
        """Mistakes are named with their place."""
        for text, key in (
            ('pool = "web"\nredirect = { to = "/x" }', "routes[0]"),
            ('host = "a"', "routes[0]"),
            ("split = { web = 1, none = 2 }", "routes[0].split"),
            ('pool = "web"\npath = "/x"\npath_regex = "x"', "routes[0].path"),
            ('pool = "web"\npath_regex = "("', "routes[0].path_regex"),
            ('pool = "web"\nrewrite = { }', "routes[0].rewrite"),
            ('redirect = { to = "{nothing}" }', "routes[0].redirect.to"),
            ('pool = "web"\nresponse_fields = { set = { A = "{client}" } }', "routes[0].response_fields.set.A"),
            ('pool = "web"\nheaders = { "X-A" = "~(" }', "routes[0].headers.X-A"),
            ('pool = "web"\nnetworks = ["10.0.0.0/40"]', "routes[0].networks[0]"),
            ('pool = "web"\nmirror = { pool = "w" }', "routes[0].mirror.pool"),
        ):
            error: BadConfig = self.assertRaises(BadConfig, self.start, more=f"[[routes]]\n{text}\n")
            self.assertEqual([problem.key for problem in error.problems][-1:], [key], text)

    def test_unknown_policy(self) -> None:
        """A policy that is not installed is refused with those that are."""
        error: BadConfig = self.assertRaises(BadConfig, self.start, 'policy = "rond-robin"')
        self.assertIn('"round-robin" (nearest known key)', error.problems[0].accepted)


class PersistenceTests(ServiceCase):
    """Clients that belong somewhere."""

    def test_cookie_while_draining(self) -> None:
        """A draining back end keeps its clients and gets no others."""
        self.start('persistence = { cookie = "LB" }')
        first = self.assign()
        response = ResponseHead(200, [])
        first.responded(response)
        cookie = response.fields[0][1].partition(b";")[0]
        self.service.drain("web", first.backend.name)
        back = self.assign(get(b"/", (b"Cookie", cookie)))
        self.assertEqual(back.backend, first.backend)
        self.assertNotIn(first.backend.name, {self.assign().backend.name for _ in range(10)})

    def test_repeat_binds_to_who_answered(self) -> None:
        """When another back end answers, the cookie names that one, with the connection's Secure."""
        self.start('persistence = { cookie = "LB" }')
        client = ClientAddress("192.0.2.7", 1, tls=True)
        second = self.assign(client=client).another()
        response = ResponseHead(200, [])
        second.responded(response)
        self.assertTrue(response.fields[0][1].endswith(b"; Secure"))
        cookie = response.fields[0][1].partition(b";")[0]
        self.assertEqual(self.assign(get(b"/", (b"Cookie", cookie))).backend, second.backend)

    def test_bound_to_a_full_one(self) -> None:
        """A client whose back end has no room waits for it, although others have."""
        self.start('queue = 5\npersistence = { kind = "hash", by = "client" }', each=", max_requests = 1")
        first = self.assign()
        waiting = self.assign()
        self.assertTrue(waiting.waiting)
        waiting.wait(lambda error: None)
        first.finished(Outcome.ANSWERED)
        self.assertEqual(waiting.backend, first.backend)


class RunningTests(ServiceCase):
    """Changes without a restart, and what worker processes hear of them."""

    def test_add_and_remove(self) -> None:
        """A back end comes and goes; unknown ones and double ones are refused."""
        self.start()
        self.service.add("web", "w9", "192.0.2.9", 8080, 2)
        at_it = [self.assign().backend.name for _ in range(10)].count("w9")
        self.assertEqual(at_it, 4)
        self.assertRaises(ValueError, self.service.add, "web", "w9", "192.0.2.9", 8080)
        self.assertEqual(self.service.remove("web", "w9"), 4)
        self.assertRaises(UnknownBackend, self.service.remove, "web", "w9")
        self.assertRaises(UnknownBackend, self.service.add, "none", "w9", "192.0.2.9", 80)

    def test_weight(self) -> None:
        """A weight counts from the next request on."""
        self.start()
        self.service.set_weight("web", "w1", 8)
        chosen = [self.assign().backend.name for _ in range(20)]
        self.assertEqual(chosen.count("w1"), 16)
        self.assertRaises(ValueError, self.service.set_weight, "web", "w1", 0)

    def test_other_processes(self) -> None:
        """What one process is told of changes makes another one the same."""
        config = 'check = { kind = "tcp", fall = 1 }'
        node = self.start(config)
        worker = self.start(config)
        node.subscribe(worker.hear)
        node.drain("web", "w1")
        node.set_weight("web", "w2", 7)
        node.add("web", "w9", "192.0.2.9", 80)
        pool = node.pools["web"]
        node.saw(pool, pool.members["w3"], Seen(False, "refused"))
        same = worker.pools["web"].members
        self.assertTrue(same["w1"].draining)
        self.assertEqual((same["w2"].weight, same["w9"].address.host), (7, "192.0.2.9"))
        self.assertIs(same["w3"].state, BackendState.DOWN)
        node.remove("web", "w9")
        self.assertNotIn("w9", same)
        late = self.start(config)
        for change in node.snapshot():
            late.hear(change)
        states = [(each.weight, each.draining, each.state) for each in late.pools["web"].members.values()]
        self.assertEqual(states, [(each.weight, each.draining, each.state) for each in pool.members.values()])
