"""Reading a configuration: what is accepted, and what is said of the rest."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lbarray.config.checks import MOST_NODES, MOST_SERVICES
from lbarray.config.load import load, parse
from lbarray.config.model import Config
from lbarray.config.scalars import HostPort
from lbarray.config.summary import summary
from lbarray.errors import BadConfig, Problem
from lbarray.scheduler.abi import MAX_SERVICES, MAX_WORKERS
from lbarray.values import HashBy, ServiceId

STANDALONE = """
[services.http]
address = "127.0.0.1"
port = 8080
[pools.web.backends]
w1 = { address = "127.0.0.1:8001" }
"""

ARRAY = """
[array]
name = "shop"
key_file = "array.key"
interface = "e0"
vips = ["10.0.0.100/24"]
[array.nodes.a]
address = "10.0.0.1"
priority = 150
[array.nodes.b]
address = "10.0.0.2"
interface = "e1"
[services.http]
vip = "10.0.0.100"
port = 80
[services.https]
vip = "10.0.0.100"
port = 443
tls = { certificate = "site.crt", key = "site.key" }
[pools.web.backends]
w1 = { address = "10.0.0.21:80", weight = 2 }
w2 = { address = "[2001:db8::1]:80" }
"""


class ParseTests(SynchronousTestCase):
    """TOML text to a Config, or every mistake at once."""

    def problems(self, text: str) -> dict[str, Problem]:
        error: BadConfig = self.assertRaises(BadConfig, parse, text)
        return {problem.key: problem for problem in error.problems}

    def test_standalone(self) -> None:
        """The smallest useful file: one service, one back end; everything else has its default."""
        config = parse(STANDALONE)
        self.assertTrue(config.standalone)
        self.assertEqual(config.pools["web"].backends["w1"].address, HostPort("127.0.0.1", 8001))
        self.assertEqual(config.service_id("http"), ServiceId(ip_address("127.0.0.1"), 8080))

    def test_array(self) -> None:
        """Nodes, VIPs and services of an array are read into their types."""
        config = parse(ARRAY)
        self.assertFalse(config.standalone)
        self.assertEqual(config.array.vips, (ip_interface("10.0.0.100/24"),))
        self.assertEqual(config.interface_of(config.array.nodes["a"]), "e0")
        self.assertEqual(config.interface_of(config.array.nodes["b"]), "e1")
        self.assertEqual(config.pools["web"].backends["w2"].address, HostPort("2001:db8::1", 80))

    def test_tls_hashes_by_client(self) -> None:
        """Without a word, a TLS service keeps a client on one worker and a plain one does not."""
        config = parse(ARRAY)
        self.assertEqual(config.plane_service("https").hash_by, HashBy.CLIENT)
        self.assertEqual(config.plane_service("http").hash_by, HashBy.CONNECTION)

    def test_hash_groups(self) -> None:
        """What makes neighbours one client gets from the file to the packet planes; by default IPv4 clients are apart,
        and of an IPv6 one the network counts."""
        names = ("http", "https")
        default = [parse(ARRAY).plane_service(name) for name in names]
        self.assertEqual([(each.prefix4, each.prefix6) for each in default], [(32, 64)] * 2)
        grouped = ARRAY.replace("[services.https]\n", "[services.https]\nhash_prefix4 = 24\nhash_prefix6 = 48\n")
        found = [parse(grouped).plane_service(name) for name in names]
        self.assertEqual([(each.prefix4, each.prefix6) for each in found], [(32, 64), (24, 48)])

    def test_least_loaded(self) -> None:
        """A service hashed by connection chooses among two workers unless told not to; by client there is no choice."""
        config = parse(ARRAY)
        self.assertEqual([config.plane_service(name).least_loaded for name in ("http", "https")], [True, False])
        without = parse(ARRAY.replace("[services.http]\n", "[services.http]\nleast_loaded = false\n"))
        self.assertFalse(without.plane_service("http").least_loaded)

    def test_relative_paths_start_at_the_folder(self) -> None:
        """A file's own paths are relative to where it lies, whatever the daemon's directory."""
        config = parse(ARRAY, folder=Path("/etc/lbarray"))
        self.assertEqual(config.array.key_file, Path("/etc/lbarray/array.key"))
        tls = config.services["https"].tls
        assert tls is not None
        self.assertEqual(tls.key, Path("/etc/lbarray/site.key"))

    def test_durations(self) -> None:
        """Seconds as a number, or a number with its unit."""
        for text, seconds in [("2", 2.0), ("0.25", 0.25), ('"250ms"', 0.25), ('"5m"', 300.0), ('"1h"', 3600.0)]:
            config = parse(STANDALONE + f"[worker]\nheader_timeout = {text}\n")
            self.assertEqual(config.worker.header_timeout, seconds)

    def test_bad_durations(self) -> None:
        """Zero, a negative, an unknown unit and a truth value are no durations."""
        for text in ["0", "-1", '"1w"', '"s"', "true", '""', "inf", "nan"]:
            found = self.problems(STANDALONE + f"[worker]\nheader_timeout = {text}\n")
            self.assertIn("250ms", found["worker.header_timeout"].accepted)

    def test_all_mistakes_at_once(self) -> None:
        """One reading finds every mistake, whichever section it is in."""
        found = self.problems(
            "[array]\nname = 5\n[services.http]\nport = 0\nhash = 'x'\n[pools.web.backends]\nw1 = 3\n"
            "[worker]\nexpose = 'yes'\n"
        )
        self.assertEqual(
            set(found),
            {
                "array.name",
                "services.http.port",
                "services.http.hash",
                "pools.web.backends.w1",
                "worker.expose",
            },
        )

    def test_unknown_key_names_the_nearest(self) -> None:
        """A slip of the finger is answered with the key that was meant, at its full path."""
        found = self.problems(STANDALONE.replace("}", ", wieght = 2 }"))
        problem = found["pools.web.backends.w1.wieght"]
        self.assertIn('"weight" (nearest known key)', problem.accepted)

    def test_unknown_section(self) -> None:
        """The top level refuses what it does not know as well."""
        self.assertIn('"services"', self.problems(STANDALONE + "[service.x]\nport = 1\n")["service"].accepted)

    def test_missing_key(self) -> None:
        """A key that must be there is named with what it would hold."""
        found = self.problems(STANDALONE.replace("port = 8080\n", ""))
        self.assertEqual(found["services.http.port"].found, "nothing")
        self.assertIn("65535", found["services.http.port"].accepted)

    def test_a_string_is_no_list(self) -> None:
        """``vips = "10.0.0.100"`` is one mistake, not ten letters."""
        found = self.problems(ARRAY.replace('["10.0.0.100/24"]', '"10.0.0.100/24"'))
        self.assertEqual(set(found), {"array.vips"})

    def test_list_items_are_numbered(self) -> None:
        """The wrong item of a list is named by its place."""
        found = self.problems(STANDALONE + "[[routes]]\npool = 'web'\n[[routes]]\npool = 'web'\npath = 'x'\n")
        self.assertEqual(set(found), {"routes[1].path"})

    def test_hosts_of_routes(self) -> None:
        """A host that no request could have is refused; others are as browsers send them."""
        route = "[[routes]]\npool = 'web'\nhost = '{}'\n"
        for wrong in ("www*.a.example", "a.example:80", "a b", "*.", "a..example", "http://a.example", "*.*.a.example"):
            self.assertEqual(set(self.problems(STANDALONE + route.format(wrong))), {"routes[0].host"}, wrong)
        for right, sent in (
            ("*", "*"),
            ("A.Example.", "a.example"),
            ("*.bücher.example", "*.xn--bcher-kva.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
            ("a_b.example", "a_b.example"),
        ):
            self.assertEqual(parse(STANDALONE + route.format(right)).routes[0].host, sent)

    def test_broken_toml(self) -> None:
        """A syntax error says where it is."""
        self.assertIn("line 1", self.problems("[array\n")["(the file)"].found)


class MeaningTests(SynchronousTestCase):
    """What each section may say in the light of the others."""

    def one(self, text: str) -> Problem:
        error: BadConfig = self.assertRaises(BadConfig, parse, text)
        self.assertEqual(len(error.problems), 1, str(error))
        return error.problems[0]

    def test_vip_must_be_the_arrays(self) -> None:
        """A service's VIP is one of array.vips."""
        problem = self.one(ARRAY.replace('vip = "10.0.0.100"\nport = 80', 'vip = "10.0.0.9"\nport = 80'))
        self.assertEqual(problem.key, "services.http.vip")
        self.assertIn("10.0.0.100", problem.accepted)

    def test_key_file_is_needed_with_nodes(self) -> None:
        """Heartbeats are authenticated, always; the message says how to make a key."""
        problem = self.one(ARRAY.replace('key_file = "array.key"\n', ""))
        self.assertEqual(problem.key, "array.key_file")
        self.assertIn("openssl rand", problem.accepted)

    def test_two_services_one_port(self) -> None:
        """Two services cannot share an address and port."""
        problem = self.one(ARRAY.replace("port = 443", "port = 80"))
        self.assertEqual(problem.key, "services.https.port")
        self.assertIn("services.http", problem.found)

    def test_persistence(self) -> None:
        """Without TLS there are no TLS sessions to go by; a learnt session must be somewhere."""
        by_tls = '[pools.web.persistence]\nkind = "tls"\n'
        problem = self.one(STANDALONE + by_tls)
        self.assertEqual((problem.key, problem.accepted), ("pools.web.persistence.kind", "cookie, learnt or hash"))
        self.assertIn("pinned by the TLS session", summary(parse(ARRAY + by_tls)))
        problem = self.one(STANDALONE + by_tls.replace("tls", "learnt"))
        self.assertIn("session_cookie", problem.accepted)

    def test_bgp_interface(self) -> None:
        """The interface that a node makes, and removes, must not be one that the machine has."""
        bgp = '\n[failover]\nmode = "bgp"\n[bgp]\ninterface = "e0"\n'
        self.assertEqual(self.one(ARRAY + bgp).key, "bgp.interface")
        self.assertEqual(parse(ARRAY + bgp.replace("e0", "vips")).bgp.interface, "vips")

    def test_route_to_nowhere(self) -> None:
        """A route's pool must exist; the nearest is named."""
        problem = self.one(STANDALONE + "[[routes]]\npool = 'wbe'\n")
        self.assertEqual(problem.key, "routes[0].pool")
        self.assertIn('"web"', problem.accepted)

    def test_more_than_packets_can_have(self) -> None:
        """More services and nodes than the packet planes have room for are named before anything starts."""
        self.assertEqual((MOST_NODES, MOST_SERVICES), (MAX_WORKERS, MAX_SERVICES))
        for count in (MOST_SERVICES, MOST_SERVICES + 1):
            more = (f'[services.s{n}]\nvip = "10.0.0.100"\nport = {8000 + n}\n' for n in range(count - 2))
            text = ARRAY + "".join(more)
            if count > MOST_SERVICES:
                self.assertEqual(self.one(text).key, "services")
            else:
                self.assertEqual(len(parse(text).services), count)
        more = (f'[array.nodes.n{n}]\naddress = "10.1.{n // 250}.{n % 250 + 1}"\n' for n in range(MOST_NODES - 1))
        self.assertEqual(self.one(ARRAY + "".join(more)).key, "array.nodes")

    def test_same_address_twice(self) -> None:
        """Two nodes with one address would fight."""
        problem = self.one(ARRAY.replace('"10.0.0.2"', '"10.0.0.1"'))
        self.assertEqual(problem.key, "array.nodes.b.address")

    def test_standalone_has_no_vip(self) -> None:
        """A VIP without neighbours to take it over is a misunderstanding."""
        problem = self.one(STANDALONE.replace('address = "127.0.0.1"\n', 'vip = "10.0.0.1"\n', 1))
        self.assertEqual(problem.key, "services.http.vip")

    def test_several_pools_need_routes(self) -> None:
        """With two pools, somebody must say what goes where."""
        problem = self.one(STANDALONE + "[pools.api.backends]\nx = { address = 'h:1' }\n")
        self.assertEqual(problem.key, "routes")


class LoadTests(SynchronousTestCase):
    """From a file, with the files that it names."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "array.toml"
        self.file.write_text(ARRAY)
        for name in ("array.key", "site.crt", "site.key"):
            (self.folder / name).write_text("0123456789abcdef0123456789abcdef\n")
            (self.folder / name).chmod(0o600)

    def problems(self) -> dict[str, Problem]:
        error: BadConfig = self.assertRaises(BadConfig, load, self.file)
        return {problem.key: problem for problem in error.problems}

    def test_whole(self) -> None:
        """With its files there, the configuration loads."""
        self.assertIsInstance(load(self.file), Config)

    def test_missing_certificate(self) -> None:
        """The key, the path and the reason are named."""
        (self.folder / "site.crt").unlink()
        problem = self.problems()["services.https.tls.certificate"]
        self.assertIn("No such file", problem.found)
        self.assertIn("site.crt", problem.found)

    def test_open_key_file(self) -> None:
        """A shared secret that everybody on the machine can read is refused, with the cure."""
        (self.folder / "array.key").chmod(0o644)
        self.assertIn("chmod 600", self.problems()["array.key_file"].accepted)

    def test_short_key_file(self) -> None:
        """A secret that can be guessed is refused."""
        (self.folder / "array.key").write_text("secret\n")
        self.assertIn("16 octets", self.problems()["array.key_file"].found)

    def test_no_file(self) -> None:
        """A configuration that is not there is one clear message."""
        self.file.unlink()
        self.assertIn("No such file", self.problems()["(the file)"].found)

    def test_shipped_examples(self) -> None:
        """The files in etc/ are good but for the keys that each site makes itself."""
        etc = Path(__file__).resolve().parents[2] / "etc"
        self.assertIn("standalone", summary(load(etc / "standalone.toml")))
        text = summary(parse((etc / "array.toml").read_text()))
        self.assertIn("3 nodes share 10.0.0.100", text)
        self.assertIn("a becomes scheduler first", text)
