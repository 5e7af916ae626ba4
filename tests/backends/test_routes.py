"""Which route holds: hosts, paths, conditions, and their precedence."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.matching import FieldTest, Match, pattern
from lbarray.backends.routes import RouteTable, normal_path
from lbarray.http.events import RequestHead
from lbarray.values import ClientAddress
from tests.backends.parts import CLIENT, get


def find(routes: dict[str, Match], request: RequestHead, client: ClientAddress = CLIENT) -> str | None:
    return RouteTable((match, name) for name, match in routes.items()).find(request, client)


class HostTests(SynchronousTestCase):
    """Exact, wildcard, any."""

    ROUTES = {
        "any": Match(),
        "wild": Match(host="*.example.net"),
        "deep": Match(host="*.b.example.net"),
        "exact": Match(host="A.example.net"),
    }

    def test_precedence(self) -> None:
        """An exact name before the longest wildcard before any; a wildcard is not its own bare name."""
        for host, wanted in (
            (b"a.example.net", "exact"),
            (b"x.b.example.net", "deep"),
            (b"y.x.b.example.net", "deep"),
            (b"x.example.net", "wild"),
            (b"example.net", "any"),
            (b".example.net", "any"),
            (b"notexample.net", "any"),
            (b"", "any"),
        ):
            self.assertEqual(find(self.ROUTES, get(host=host)), wanted, host)

    def test_a_host_without_that_path(self) -> None:
        """A more exact host that has no such path does not hide the others."""
        routes = {"any": Match(), "api": Match(host="a.example", path="/api/")}
        self.assertEqual(find(routes, get(b"/x", host=b"a.example")), "any")
        self.assertEqual(find(routes, get(b"/api/x", host=b"a.example")), "api")

    def test_none(self) -> None:
        """Without a route for it a request has none."""
        self.assertIsNone(find({"wild": Match(host="*.example.net")}, get(host=b"a.example")))
        self.assertIsNone(find({}, get()))


class PathTests(SynchronousTestCase):
    """Exact, regular expression, prefix."""

    def test_longest_prefix(self) -> None:
        """Of several prefixes the longest wins, wherever it stands."""
        routes = {"all": Match(), "api": Match(path="/api/"), "v2": Match(path="/api/v2")}
        for target, wanted in (
            (b"/", "all"),
            (b"/api", "all"),
            (b"/api/", "api"),
            (b"/api/x", "api"),
            (b"/api/v2?q", "v2"),
            (b"/api/v2/x/y/z", "v2"),
            (b"/api/v20", "api"),
            (b"*", "all"),
        ):
            self.assertEqual(find(routes, get(target)), wanted, target)

    def test_whole_segments(self) -> None:
        """A prefix ends where a segment does."""
        routes = {"all": Match(), "shop": Match(path="/shop")}
        for target, wanted in ((b"/shop", "shop"), (b"/shop/x", "shop"), (b"/shop?x", "shop"), (b"/shopping", "all")):
            self.assertEqual(find(routes, get(target)), wanted, target)

    def test_exact_then_regex_then_prefix(self) -> None:
        """The whole path wins over an expression, an expression over every prefix, the first of several wins."""
        routes = {
            "prefix": Match(path="/shop/deep"),
            "second": Match(regex=r"\.php$"),
            "first": Match(regex=r"^/shop/.*\.php$"),
            "exact": Match(exact="/shop/deep/x.php"),
        }
        self.assertEqual(find(routes, get(b"/shop/deep/x.php?y")), "exact")
        self.assertEqual(find(routes, get(b"/shop/deep/z.php")), "second")
        self.assertEqual(find(routes, get(b"/shop/deep/z")), "prefix")
        self.assertIsNone(find(routes, get(b"/other")))

    def test_octets(self) -> None:
        """An expression sees octets, not text: nothing that a client sends makes it fail."""
        self.assertEqual(find({"all": Match(regex="^/.$")}, get(b"/\xff")), "all")

    def test_spellings(self) -> None:
        """Other spellings of a path cannot walk around its route."""
        routes = {"all": Match(), "admin": Match(path="/admin"), "one": Match(exact="/one")}
        for target in (b"/%61dmin", b"/x/../admin", b"/./admin/y", b"/admin/%2e", b"/%2E%2e/admin", b"/x/%2e./admin"):
            self.assertEqual(find(routes, get(target)), "admin", target)
        self.assertEqual(find(routes, get(b"/%6fne")), "one")
        self.assertEqual(normal_path(b"/a/./b/../c/"), b"/a/c/")
        self.assertEqual(normal_path(b"/a/.."), b"/")
        self.assertEqual(normal_path(b"/a%2Fb%20"), b"/a%2Fb%20")

    def test_no_expression(self) -> None:
        """What the engine cannot do in linear time is refused."""
        for text in ("(", "(?=x)", r"(a)\1"):
            self.assertRaises(ValueError, pattern, text)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.lists(st.sampled_from(["a", "b", "ab", ""]), max_size=4), min_size=1, max_size=8),
        st.lists(st.sampled_from([b"a", b"b", b"ab", b""]), max_size=5),
    )
    def test_like_comparing_one_by_one(self, prefixes: list[list[str]], asked: list[bytes]) -> None:
        """The trie finds what a look at every prefix would find."""
        texts = list(dict.fromkeys("/" + "/".join(prefix) for prefix in prefixes))
        path = b"/" + b"/".join(asked)

        def holds(text: str) -> bool:
            prefix = text.encode()
            return path.startswith(prefix) and (
                prefix.endswith(b"/") or len(path) == len(prefix) or path[len(prefix)] == 0x2F
            )

        wanted = max((text for text in texts if holds(text)), key=len, default=None)
        self.assertEqual(find({text: Match(path=text) for text in texts}, get(path)), wanted)


class Counting(RequestHead):
    """Counts how often somebody asks for a field."""

    asked = 0

    def get(self, name: bytes) -> bytes | None:
        self.asked += 1
        return super().get(name)


_VALUES = st.sampled_from(["1", "2", "3"])
_FIELDS = st.lists(
    st.builds(
        FieldTest,
        name=st.sampled_from(["X-A", "x-a", "X-B"]),
        value=st.one_of(st.none(), _VALUES, st.just("~2|3")),
        present=st.sampled_from([True, True, True, False]),
    ),
    max_size=3,
)
_MATCHES = st.builds(
    Match,
    methods=st.sampled_from([(), (), ("GET",), ("POST", "GET"), ("PUT",)]),
    networks=st.sampled_from(
        [(), (), (ip_network("10.0.0.0/8"),), (ip_network("10.1.0.0/16"), ip_network("2001:db8::/32"))]
    ),
    headers=_FIELDS.map(tuple),
    query=_FIELDS.map(tuple),
)


class ManyConditionsTests(SynchronousTestCase):
    """Many routes of one host and path."""

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(_MATCHES, min_size=1, max_size=40),
        st.sampled_from([b"GET", b"POST", b"PATCH"]),
        st.sampled_from(["10.1.2.3", "10.2.0.1", "2001:db8::1", "192.0.2.1", "unix"]),
        st.dictionaries(st.sampled_from(["X-A", "X-B"]), _VALUES),
        st.dictionaries(st.sampled_from(["X-A", "X-B"]), _VALUES),
    )
    def test_like_asking_one_by_one(
        self, matches: list[Match], method: bytes, host: str, headers: dict[str, str], query: dict[str, str]
    ) -> None:
        """The index finds what a look at every route would find."""
        target = "/?" + "&".join(f"{name}={value}" for name, value in query.items())
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        request, client = RequestHead(method, target.encode(), fields), ClientAddress(host, 1)
        holding = [
            (-len(match.conditions()), place)
            for place, match in enumerate(matches)
            if all(test(request, client) for _, test in match.conditions())
        ]
        table = RouteTable((match, place) for place, match in enumerate(matches))
        self.assertEqual(table.find(request, client), min(holding)[1] if holding else None)

    def test_what_an_index_cannot_know(self) -> None:
        """Another condition on the very field that routes are told apart by counts as well."""
        routes = {
            str(number): Match(headers=(FieldTest("X", "~[13579]$"), FieldTest("X", str(number))))
            for number in range(40)
        }
        self.assertEqual(find(routes, get(b"/", (b"X", b"13"))), "13")
        self.assertIsNone(find(routes, get(b"/", (b"X", b"12"))))

    def test_as_many_steps_as_for_few(self) -> None:
        """Thousands of routes that differ by a field, a network or both are not asked one by one."""
        routes = [Match(headers=(FieldTest("X-Tenant", str(number)),)) for number in range(2000)]
        routes += [Match(headers=(FieldTest("X-User", str(number)),)) for number in range(2000)]
        routes += [
            Match(networks=(ip_network(f"10.{number >> 8}.{number & 255}.0/24"),), headers=(FieldTest("X-C", "1"),))
            for number in range(2000)
        ]
        table = RouteTable((match, number) for number, match in enumerate(routes))
        for field, client, wanted in (
            ((b"X-Tenant", b"1234"), CLIENT, 1234),
            ((b"X-User", b"1999"), CLIENT, 3999),
            ((b"X-C", b"1"), ClientAddress("10.7.207.3", 1), 5999),
            ((b"X-Tenant", b"none"), CLIENT, None),
        ):
            request = Counting(b"GET", b"/", [field])
            self.assertEqual(table.find(request, client), wanted)
            self.assertLess(request.asked, 10)


class ConditionTests(SynchronousTestCase):
    """Method, client network, headers, query."""

    def test_methods(self) -> None:
        """One of those named."""
        routes: dict[str, Match] = {"read": Match(methods=("GET", "HEAD")), "rest": Match()}
        self.assertEqual(find(routes, get()), "read")
        self.assertEqual(find(routes, RequestHead(b"POST", b"/", [])), "rest")

    def test_networks(self) -> None:
        """The client's address is in one of them, also when IPv6 wraps it."""
        routes = {
            "inside": Match(networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))),
            "outside": Match(),
        }
        for host, wanted in (
            ("10.1.2.3", "inside"),
            ("::ffff:10.1.2.3", "inside"),
            ("2001:db8::1%eth0", "inside"),
            ("192.0.2.1", "outside"),
            ("2001:db9::1", "outside"),
            ("unix", "outside"),
        ):
            self.assertEqual(find(routes, get(), ClientAddress(host, 1)), wanted, host)

    def test_headers_and_query(self) -> None:
        """A value exactly, by expression, there, not there."""
        cases: list[tuple[FieldTest, bytes | None, bool]] = [
            (FieldTest("X-A", "1"), b"1", True),
            (FieldTest("X-A", "1"), b"10", False),
            (FieldTest("X-A", "1"), None, False),
            (FieldTest("X-A", "~^1"), b"10", True),
            (FieldTest("X-A", "~^1"), b"01", False),
            (FieldTest("X-A"), b"", True),
            (FieldTest("X-A"), None, False),
            (FieldTest("X-A", present=False), None, True),
            (FieldTest("X-A", present=False), b"x", False),
        ]
        for test, value, holds in cases:
            wanted = "yes" if holds else None
            with_field = get() if value is None else get(b"/", (b"x-a", value))
            self.assertEqual(find({"yes": Match(headers=(test,))}, with_field), wanted, (test, value))
            with_query = get(b"/?b=2") if value is None else get(b"/?b=2&X-A=" + value)
            self.assertEqual(find({"yes": Match(query=(test,))}, with_query), wanted, (test, value))

    def test_most_conditions_first(self) -> None:
        """Of equal hosts and paths the route with more conditions wins; of equals the first."""
        routes = {
            "none": Match(),
            "one": Match(methods=("GET",)),
            "two": Match(methods=("GET",), headers=(FieldTest("X"),)),
            "later": Match(headers=(FieldTest("X"),), query=(FieldTest("y"),)),
        }
        self.assertEqual(find(routes, get(b"/?y=1", (b"X", b"1"))), "two")
        self.assertEqual(find(routes, get()), "one")
        self.assertEqual(find({"a": Match(), "b": Match()}, get()), "a")

    def test_everything(self) -> None:
        """One route without conditions holds for all; with a condition, or beside another, it is looked at."""
        self.assertEqual(find({"all": Match()}, get(b"/x/../y")), "all")
        self.assertIsNone(find({"all": Match(methods=("POST",))}, get()))
        self.assertEqual(find({"all": Match(), "b": Match(host="b.example")}, get(host=b"b.example")), "b")
        self.assertEqual(find({"all": Match(), "x": Match(exact="/x")}, get(b"/x")), "x")

    def test_conditions_fall_back(self) -> None:
        """Where the conditions of a longer path do not hold, a shorter one is found."""
        routes: dict[str, Any] = {"long": Match(path="/a/b", methods=("POST",)), "short": Match(path="/a")}
        self.assertEqual(find(routes, get(b"/a/b")), "short")
