"""What brings clients back: cookies, hash groups, learnt sessions, TLS sessions."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lbarray.backends.keys import address_key, key_reader, parameter
from lbarray.backends.persistence.cookie import CookiePersistence
from lbarray.backends.persistence.groups import GroupPersistence
from lbarray.backends.persistence.learnt import KEY_OCTETS, LearntPersistence, SessionTable
from lbarray.backends.persistence.tls_session import TlsSessionPersistence
from lbarray.backends.pool import Member
from lbarray.http.events import ResponseHead
from lbarray.interfaces import IPersistence
from lbarray.values import ClientAddress, TlsSession
from tests.backends.parts import CLIENT, get, members


class CookieTests(SynchronousTestCase):
    """The injected cookie."""

    def setUp(self) -> None:
        self.members = members(1, 1, 1)
        self.kept = self.make()

    def make(self, secret: bytes = b"secret", **more: Any) -> CookiePersistence:
        kept = CookiePersistence(cookie="LB", secret=secret, **more)
        kept.update(self.members, self.members)
        return kept

    def given(self, member: Member, *, kept: CookiePersistence | None = None, secure: bool = False) -> bytes:
        response = ResponseHead(200, [])
        (kept or self.kept).answered(member, False, b"", response, secure)
        return dict(response.fields)[b"Set-Cookie"]

    def back(self, cookie: bytes, kept: CookiePersistence | None = None) -> Any:
        return (kept or self.kept).find(get(b"/", (b"Cookie", cookie.partition(b";")[0])), CLIENT)[0]

    def test_round_trip(self) -> None:
        """Who was given a cookie comes back to the member that answered, through every node."""
        verifyObject(IPersistence, self.kept)
        for member in self.members:
            self.assertIs(self.back(self.given(member)), member)
            self.assertIs(self.back(self.given(member), self.make()), member)

    def test_given_once(self) -> None:
        """Who is where the cookie says gets no new one."""
        response = ResponseHead(200, [])
        self.kept.answered(self.members[0], True, b"", response, False)
        self.assertEqual(response.fields, [])

    def test_forged(self) -> None:
        """Without the array's key nobody can make one; an unknown value is no value; it says nothing."""
        for value in (b"LB=", b"LB=w0", b"LB=" + b"\xff" * 50, self.given(self.members[0], kept=self.make(b"other"))):
            self.assertIsNone(self.back(value))
        self.assertNotIn(b"w0", self.given(self.members[0]))

    def test_down(self) -> None:
        """A cookie of a member that cannot serve binds to nobody."""
        cookie = self.given(self.members[0])
        self.kept.update(self.members, self.members[1:])
        self.assertIsNone(self.back(cookie))

    def test_grows(self) -> None:
        """When the pool grows or shrinks, clients of the others stay where they are."""
        cookies = [self.given(member) for member in self.members]
        grown = [*self.members, *members(1, 1, 1, 1)[3:]]
        self.kept.update(grown, grown)
        self.assertEqual([self.back(cookie) for cookie in cookies], self.members)
        self.kept.update(grown[1:], grown[1:])
        self.assertEqual([self.back(cookie) for cookie in cookies], [None, *self.members[1:]])

    def test_stripped(self) -> None:
        """The back end does not see it, unless that is wanted."""
        cookie = self.given(self.members[0]).partition(b";")[0]
        for strip, wanted in ((True, [(b"Cookie", b"a=1")]), (False, [(b"Cookie", cookie + b"; a=1")])):
            request = get(b"/", (b"Cookie", cookie + b"; a=1"))
            self.make(strip=strip).find(request, CLIENT)
            self.assertEqual(request.fields, wanted)

    def test_caches(self) -> None:
        """A response that shared caches may keep gets no cookie, else all would get that one; one of which nothing is
        said is kept out of them."""
        for said, cookie, private in (
            ("public, max-age=600", False, False),
            ("max-age=600", False, False),
            ("s-maxage=5, max-age=0", False, False),
            ("private, max-age=600", True, False),
            ("no-store", True, False),
            ("max-age=0, must-revalidate", True, True),
            ("x-private=public", True, True),
            ("", True, True),
        ):
            response = ResponseHead(200, [(b"cache-control", said.encode())] if said else [])
            self.kept.answered(self.members[0], False, b"", response, False)
            names = [name for name, _ in response.fields]
            self.assertEqual(b"Set-Cookie" in names, cookie, said)
            self.assertEqual((b"Cache-Control", b"private") in response.fields, private, said)

    def test_attributes(self) -> None:
        """As configured; Secure by itself where the client came over TLS."""
        one = self.members[0]
        self.assertTrue(self.given(one).endswith(b"; Path=/; HttpOnly; SameSite=Lax"))
        self.assertTrue(self.given(one, secure=True).endswith(b"; Secure"))
        kept = self.make(secure=True, http_only=False, path="/shop", domain="example.net", max_age_s=60)
        self.assertTrue(
            self.given(one, kept=kept).endswith(b"; Path=/shop; Domain=example.net; Max-Age=60; SameSite=Lax; Secure")
        )


class GroupTests(SynchronousTestCase):
    """Hash groups."""

    CLIENTS = [ClientAddress(f"10.{number >> 8}.{number & 255}.1", 1) for number in range(3000)]

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.members = members(1, 1, 1, 1, 1)

    def make(self, **more: Any) -> GroupPersistence:
        settings = {"key_of": key_reader("client"), "seed": b"s", "seconds": self.clock.seconds, "groups": 1024}
        kept = GroupPersistence(**{**settings, **more})
        kept.update(self.members, self.members)
        return kept

    def where(self, kept: GroupPersistence) -> list[Any]:
        return [kept.find(get(), client)[0] for client in self.CLIENTS]

    def test_the_same_on_every_node(self) -> None:
        """Nodes that know the same members compute the same table."""
        verifyObject(IPersistence, self.make())
        self.assertEqual(self.where(self.make()), self.where(self.make()))

    def test_only_lost_groups_move(self) -> None:
        """A member that dies moves its own clients and no other; back again, it has them all."""
        kept = self.make()
        before = self.where(kept)
        kept.update(self.members, self.members[1:])
        without = self.where(kept)
        self.assertNotIn(self.members[0], without)
        self.assertEqual(
            [at for at in before if at is not self.members[0]],
            [now for now, at in zip(without, before, strict=True) if at is not self.members[0]],
        )
        kept.update(self.members, self.members)
        self.assertEqual(self.where(kept), before)

    def test_a_new_member_takes_its_part(self) -> None:
        """Clients move only to the new one, about as many as its part is."""
        kept = self.make()
        kept.update(self.members[:4], self.members[:4])
        before = self.where(kept)
        kept.update(self.members, self.members)
        moved = [now for now, then in zip(self.where(kept), before, strict=True) if now is not then]
        self.assertEqual(set(moved), {self.members[4]})
        self.assertApproximates(len(moved) / len(self.CLIENTS), 0.2, 0.08)

    def test_about_even(self) -> None:
        """Each of ten has about its part of the groups, by weight."""
        for weights in ((1,) * 10, (1, 2, 3, 4)):
            them = members(*weights)
            kept = self.make(groups=8192)
            kept.update(them, them)
            counts = Counter(kept.table)
            for member in them:
                part = len(kept.table) * member.weight / sum(weights)
                self.assertLess(abs(counts[member] / part - 1.0), 0.2)

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 5)), max_size=6),
        st.sets(st.integers(0, 63)),
    )
    def test_next_on_the_ring(self, states: list[tuple[bool, bool, int]], used: set[int]) -> None:
        """Each group is at the first on its ring who serves, and who does not drain unless the group is in use."""
        them = members(*(weight for _, _, weight in states))
        kept = self.make(groups=64)
        for group in used:
            kept._used[group] = self.clock.seconds()
        for member, (_, draining, _) in zip(them, states, strict=True):
            member.draining = draining
        serving = [member for member, (serves, _, _) in zip(them, states, strict=True) if serves]
        kept.update(them, serving)
        by_name = {member.address.name: member for member in them}
        for group, position in enumerate(kept._positions):
            owners = kept._ring.owners
            start = kept._ring.place(position) if owners else 0
            walk = (by_name[name] for name in (*owners[start:], *owners[:start]))
            wanted = (each for each in walk if each in serving and (not each.draining or group in used))
            self.assertIs(kept.table[group], next(wanted, None))

    def test_networks_belong_together(self) -> None:
        """Clients of one prefix are one client."""
        kept = self.make(key_of=key_reader("client", prefix4=24, prefix6=48))
        self.assertEqual(len({kept.find(get(), ClientAddress(f"192.0.2.{n}", 1))[0] for n in range(200)}), 1)
        self.assertEqual(address_key("2001:db8:1:2::3", 24, 48), address_key("2001:db8:1:ffff::9", 24, 48))
        self.assertEqual(address_key("::ffff:192.0.2.1", 32, 64), address_key("192.0.2.1", 32, 64))

    def test_draining_keeps_used_groups(self) -> None:
        """While a member drains, clients that are there stay; groups that nobody uses go to others."""
        kept = self.make(idle_s=100.0)
        leaving = self.members[0]
        before = dict(zip(self.CLIENTS, self.where(kept), strict=True))
        mine = [client for client, at in before.items() if at is leaving]
        self.clock.advance(90)
        kept.find(get(), mine[0])
        self.clock.advance(20)
        leaving.draining = True
        kept.update(self.members, self.members)
        self.assertIs(kept.find(get(), mine[0])[0], leaving)
        group = kept.group_of(key_reader("client")(get(), mine[0]))
        others = [each for each in mine if kept.group_of(key_reader("client")(get(), each)) != group]
        self.assertNotIn(leaving, {kept.find(get(), client)[0] for client in others})
        self.clock.advance(101)
        self.assertTrue(kept.tick(self.clock.seconds()))
        self.assertIsNot(kept.find(get(), mine[0])[0], leaving)

    def test_what_other_nodes_use_stays_too(self) -> None:
        """Nodes tell each other which groups they use, in an octet for eight of them."""
        here, there = self.make(idle_s=100.0), self.make(idle_s=100.0)
        client = next(each for each in self.CLIENTS if there.find(get(), each)[0] is self.members[0])
        told = there.used_here(self.clock.seconds())
        self.assertLess(len(told), 1200)
        self.members[0].draining = True
        here.used_elsewhere(told, self.clock.seconds())
        here.used_elsewhere(b"another size", self.clock.seconds())
        here.update(self.members, self.members)
        self.assertIs(here.find(get(), client)[0], self.members[0])

    def test_no_key(self) -> None:
        """A request without the key belongs to nobody."""
        self.assertEqual(self.make(key_of=key_reader("header:X-User")).find(get(), CLIENT), (None, b""))


class LearntTests(SynchronousTestCase):
    """The application's own sessions."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[bytes, str]] = []
        self.members = members(1, 1)
        self.table = self.make_table()
        self.kept = self.make(self.table)

    def make_table(self, **more: Any) -> SessionTable:
        settings: dict[str, Any] = {"most": 100, "ttl_s": 60.0, "seconds": self.clock.seconds}
        return SessionTable(**{**settings, **more}, told=lambda key, name: self.told.append((key, name)))

    def make(self, table: SessionTable) -> LearntPersistence:
        kept = LearntPersistence(table=table, seed=b"s", cookie="JSESSIONID", header="X-Session", query="jsessionid")
        kept.update(self.members, self.members)
        return kept

    def answer(self, *fields: tuple[bytes, bytes], member: int = 1) -> None:
        self.kept.answered(self.members[member], False, b"", ResponseHead(200, list(fields)), False)

    def find(self, *fields: tuple[bytes, bytes], target: bytes = b"/") -> Any:
        return self.kept.find(get(target, *fields), CLIENT)[0]

    def test_from_a_cookie(self) -> None:
        """An id that a response set is known in cookies, in the URL's query and in its path."""
        verifyObject(IPersistence, self.kept)
        self.answer((b"Set-Cookie", b"JSESSIONID=abc; Path=/"))
        self.assertIs(self.find((b"Cookie", b"x=1; JSESSIONID=abc")), self.members[1])
        self.assertIs(self.find(target=b"/a?b=c&jsessionid=abc"), self.members[1])
        self.assertIs(self.find(target=b"/a;jsessionid=abc/b"), self.members[1])
        self.assertIsNone(self.find((b"Cookie", b"JSESSIONID=other")))
        self.assertIsNone(self.find())

    def test_from_a_header(self) -> None:
        """Or from a field of the response."""
        self.answer((b"x-session", b"s1"), member=0)
        self.assertIs(self.find((b"X-Session", b"s1")), self.members[0])

    def test_unknown_ones_settle(self) -> None:
        """A session that this node has never heard of stays where its next request went."""
        found, mark = self.kept.find(get(b"/", (b"Cookie", b"JSESSIONID=old")), CLIENT)
        self.assertIsNone(found)
        self.kept.answered(self.members[0], False, mark, ResponseHead(200, []), False)
        self.assertIs(self.find((b"Cookie", b"JSESSIONID=old")), self.members[0])

    def test_gone_member(self) -> None:
        """A session of a member that cannot serve belongs to nobody."""
        self.answer((b"Set-Cookie", b"JSESSIONID=abc"))
        self.kept.update(self.members, self.members[:1])
        self.assertIsNone(self.find((b"Cookie", b"JSESSIONID=abc")))

    def test_expires(self) -> None:
        """Sessions are forgotten when nobody has used them for their time."""
        self.answer((b"Set-Cookie", b"JSESSIONID=abc"))
        self.clock.advance(50)
        self.assertIsNotNone(self.find((b"Cookie", b"JSESSIONID=abc")))
        self.clock.advance(61)
        self.kept.tick(self.clock.seconds())
        self.assertEqual(len(self.table), 0)
        self.assertIsNone(self.find((b"Cookie", b"JSESSIONID=abc")))

    def test_expires_by_last_use(self) -> None:
        """The table forgets those that were not used, however many came after them, and no others."""
        for key in (b"a", b"b", b"c"):
            self.table.learn(key, "w0")
            self.clock.advance(10)
        self.table.get(b"a")
        self.table.learn(b"b", "w1")
        self.clock.advance(35)
        self.assertEqual(self.table.expire(self.clock.seconds()), 0)
        self.clock.advance(20)
        self.assertEqual(self.table.expire(self.clock.seconds()), 1)
        self.assertEqual([key for key, _ in self.table.entries()], [b"a", b"b"])

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.binary(min_size=1, max_size=3), max_size=300), st.integers(1, 20))
    def test_bounded(self, sessions: list[bytes], most: int) -> None:
        """However many clients there are, the table has its size, and holds the latest."""
        table = self.make_table(most=most)
        for session in sessions:
            table.learn(session, "w0")
        self.assertLessEqual(len(table), most)
        latest = list(dict.fromkeys(reversed(sessions)))[:most]
        self.assertEqual({key for key, _ in table.entries()}, set(latest))

    def test_other_nodes_are_told(self) -> None:
        """Once when a session begins, and again when it has been used for a while; not at every request."""
        self.table.learn(b"k", "w0")
        self.table.learn(b"k", "w0")
        for _ in range(5):
            self.table.get(b"k")
        self.assertEqual(self.told, [(b"k", "w0")])
        self.clock.advance(16)
        self.table.get(b"k")
        self.table.get(b"k")
        self.assertEqual(self.told, [(b"k", "w0")] * 2)
        self.table.hear(b"other", "w1")
        self.assertEqual((self.table.get(b"other"), len(self.told)), ("w1", 2))


class TlsSessionTests(SynchronousTestCase):
    """Clients by their TLS sessions."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[bytes, str]] = []
        self.members = members(1, 1)
        self.table = SessionTable(
            most=100, ttl_s=60.0, seconds=self.clock.seconds, told=lambda key, name: self.told.append((key, name))
        )
        self.kept = TlsSessionPersistence(table=self.table, seed=b"s")
        self.kept.update(self.members, self.members)

    def ask(self, presented: str = "", issued: str = "", *, member: int = 0, host: str = "192.0.2.1") -> Any:
        """One request of a connection with sessions of these letters, and its answer: who was found before it."""
        keys = [tuple(letter.encode() * KEY_OCTETS for letter in letters) for letters in (presented, issued)]
        session = TlsSession(keys[0], keys[1]) if presented or issued else None
        client = ClientAddress(host, 4000, True, session)
        found, mark = self.kept.find(get(b"/"), client)
        answering = found or self.members[member]
        self.kept.answered(answering, found is not None, mark, ResponseHead(200, []), True)
        return found

    def test_chain(self) -> None:
        """A new client belongs to nobody; from its first answer on its connection stays, and so does each one that
        brings a ticket of an earlier one, wherever it comes from."""
        verifyObject(IPersistence, self.kept)
        self.assertIsNone(self.ask(issued="ab", member=1))
        self.assertIs(self.ask(issued="ab"), self.members[1])
        self.assertIs(self.ask("b", "c", host="198.51.100.7"), self.members[1])
        self.assertIs(self.ask("c", "d"), self.members[1])
        self.assertIs(self.ask("a", "e"), self.members[1])
        self.assertIsNone(self.ask("x", "y"))

    def test_gone_member(self) -> None:
        """Its sessions settle at another one, and stay there when it comes back."""
        self.ask(issued="ab", member=1)
        self.kept.update(self.members, self.members[:1])
        self.assertIsNone(self.ask("a", "c"))
        self.kept.update(self.members, self.members)
        self.assertIs(self.ask("c", "d"), self.members[0])
        self.assertIs(self.ask("a", "e"), self.members[0])

    def test_without_sessions(self) -> None:
        """Who keeps no session is known by the address."""
        self.assertIsNone(self.ask(member=1))
        self.assertIs(self.ask(), self.members[1])
        self.assertIsNone(self.ask(host="192.0.2.2"))

    def test_long_connection(self) -> None:
        """All tickets of a connection live as long as it is used, and other nodes hear of them again."""
        self.ask(issued="ab", member=1)
        self.assertEqual(len(self.told), 2)
        for _ in range(10):
            self.clock.advance(20)
            self.ask(issued="ab")
        self.assertIs(self.ask("b", "c"), self.members[1])
        self.assertEqual(len(self.told), 2 + 2 * 10 + 1)

    def test_rolling(self) -> None:
        """A session that its application gives out again with each response is told again, too."""
        for _ in range(4):
            self.clock.advance(20)
            self.table.learn(b"k", "w0")
            self.table.learn(b"k", "w0")
        self.assertEqual(self.told, [(b"k", "w0")] * 4)


class KeyTests(SynchronousTestCase):
    """What a request is known by."""

    def test_readers(self) -> None:
        """Each kind reads its part; what is not there is empty."""
        request = get(b"/p/a?x=1&y=2", (b"X-User", b"u"), (b"Cookie", b"a=b; s=t"))
        for by, wanted in (
            ("url", b"a.example/p/a?x=1&y=2"),
            ("path", b"/p/a"),
            ("host", b"a.example"),
            ("client", bytes([192, 0, 2, 200])),
            ("header:x-user", b"u"),
            ("header:x-none", b""),
            ("cookie:s", b"t"),
            ("cookie:none", b""),
            ("query:y", b"2"),
            ("query:none", b""),
        ):
            self.assertEqual(key_reader(by)(request, CLIENT), wanted, by)
        for wrong in ("", "cookie:", "nothing", "header"):
            self.assertRaises(ValueError, key_reader, wrong)

    def test_parameter(self) -> None:
        """Whole names only."""
        self.assertEqual(parameter(b"/?ab=1&b=2", b"b"), b"2")
        self.assertEqual(parameter(b"/x;ab=1;b=2/y", b"b"), b"2")
        self.assertEqual(parameter(b"/b=1", b"b"), b"")
