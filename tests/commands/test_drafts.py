"""Configurations written from answers, and from other programs' files."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.commands import main
from lbarray.commands.drafts.blocks import NotReadable, read_blocks
from lbarray.commands.drafts.draft import Draft, DraftPool, DraftService
from lbarray.commands.drafts.haproxy import from_haproxy
from lbarray.commands.drafts.keepalived import from_keepalived
from lbarray.commands.drafts.nginx import from_nginx
from lbarray.config.load import parse
from lbarray.config.model import Config

HAPROXY = """
global
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout server 30000   # milliseconds without a unit
frontend www
    bind *:8080
    bind 10.0.0.5:443 ssl crt /etc/ssl/site.pem alpn h2
    acl is_api path_beg /api
    acl is_admin hdr(host) -i Admin.example.com
    http-request set-header X-Foo "bar baz"
    use_backend api if is_api
    use_backend admin if is_admin
    default_backend web
backend web
    balance leastconn
    option httpchk GET /health
    cookie SRV insert indirect nocache
    server w1 10.0.0.21:80 check inter 2s fall 4 weight 2 cookie w1
    server w2 10.0.0.22:80 check
backend api
    server a1 10.0.0.31:8080
backend admin
    balance source
    server x1 10.0.0.41:8080 ssl verify none
listen mail
    mode tcp
    bind :25
    server m 10.0.0.9:25
"""

NGINX = """
user www-data;
events { worker_connections 1024; }
http {
  upstream app { least_conn; server 10.0.0.21:8000 weight=3; server 10.0.0.22 max_fails=2; keepalive 16; }
  server {
    listen 80;
    listen 443 ssl;  # both
    server_name shop.example.com *.shop.example.com;
    ssl_certificate /etc/ssl/shop.crt; ssl_certificate_key /etc/ssl/shop.key;
    proxy_read_timeout 90s;
    location / { proxy_pass http://app; proxy_set_header Host $host; }
    location /static/ { proxy_pass http://10.0.0.30:8080; }
    location ~ \\.php$ { proxy_pass http://app; }
    add_header X-Frame-Options "DENY; always";
  }
  server { listen 80; server_name old.example.com; return 301 https://shop.example.com; }
}
"""

KEEPALIVED = """
! Configuration File
global_defs {
   router_id LVS_MAIN
}
vrrp_instance VI_1
{
    state MASTER
    interface ens3
    virtual_router_id 77
    priority 150
    advert_int 0.5
    unicast_src_ip 10.0.0.1
    unicast_peer {
        10.0.0.2
    }
    authentication {
        auth_type PASS
        auth_pass secret
    }
    virtual_ipaddress {
        10.0.0.100/24 dev ens3
    }
}
virtual_server 10.0.0.100 80 {
    delay_loop 5
    lb_algo wlc
    lb_kind DR
    real_server 10.0.0.21 80 {
        weight 3
        HTTP_GET {
            url {
              path /health
            }
        }
    }
    real_server 10.0.0.22 80 {
    }
}
"""


def config(draft: Draft) -> Config:
    """The draft as the daemon reads it; its array's key is a name only."""
    return parse(draft.to_toml())


class HaproxyTests(SynchronousTestCase):
    """``lbarray convert haproxy.cfg``."""

    def setUp(self) -> None:
        self.draft = from_haproxy(HAPROXY)
        self.config = config(self.draft)

    def test_services(self) -> None:
        """Each bind is a service, with its certificate."""
        self.assertEqual(
            [str(self.config.service_id(name)) for name in self.config.services],
            ["0.0.0.0:8080/tcp", "10.0.0.5:443/tcp"],
        )
        tls = self.config.services["www-443"].tls
        assert tls is not None
        self.assertEqual(str(tls.certificate), "/etc/ssl/site.pem")

    def test_pools(self) -> None:
        """Servers with weights, checks, cookies and policies."""
        web = self.config.pools["web"]
        self.assertEqual(web.policy, "least-outstanding")
        self.assertEqual(
            {name: (str(b.address), b.weight) for name, b in web.backends.items()},
            {"w1": ("10.0.0.21:80", 2), "w2": ("10.0.0.22:80", 1)},
        )
        assert web.check is not None and web.persistence is not None
        self.assertEqual(
            (web.check.kind, web.check.path, web.check.interval, web.check.fall), ("http", "/health", 2.0, 4)
        )
        self.assertEqual(web.persistence.cookie, "SRV")
        self.assertIsNotNone(self.config.pools["admin"].tls)

    def test_stick(self) -> None:
        """What clients stick by; what has no counterpart is named."""
        for sample, wanted in (
            ("src", ("hash", "client", None, None)),
            ("ssl_fc_session_id", ("tls", "client", None, None)),
            ("req.cook(JSESSIONID)", ("learnt", "client", "JSESSIONID", None)),
            ("url_param(sid)", ("learnt", "client", None, "sid")),
            ("req.hdr(X-User),lower", ("hash", "header:X-User", None, None)),
        ):
            found = from_haproxy(HAPROXY.replace("balance source", f"stick on {sample}"))
            kept = parse(found.to_toml()).pools["admin"].persistence
            assert kept is not None
            self.assertEqual((kept.kind, kept.by, kept.session_cookie, kept.session_query), wanted)
        found = from_haproxy(HAPROXY.replace("balance source", "stick on rdp_cookie(mstshash)"))
        self.assertIn("stick on rdp_cookie", "".join(found.notes))

    def test_routes(self) -> None:
        """Conditions on host and path are routes; the default comes last."""
        self.assertEqual(
            [(route.pool, route.host, route.path) for route in self.config.routes],
            [("api", "*", "/api"), ("admin", "admin.example.com", "/"), ("web", "*", "/")],
        )

    def test_timeouts(self) -> None:
        """With their units."""
        self.assertEqual((self.config.worker.connect_timeout, self.config.worker.response_timeout), (5.0, 30.0))

    def test_left_out(self) -> None:
        """What has no counterpart is named with its line; what is the daemon's own business is not."""
        notes = "\n".join(self.draft.notes)
        for words in ("line 13: http-request set-header X-Foo bar baz", "balance source", "listen mail", "verify"):
            self.assertIn(words, notes)
        self.assertNotIn("maxconn", notes)


class NginxTests(SynchronousTestCase):
    """``lbarray convert nginx.conf``."""

    def setUp(self) -> None:
        self.draft = from_nginx(NGINX)
        self.config = config(self.draft)

    def test_services(self) -> None:
        """Each listen once, with the server's certificate."""
        self.assertEqual(
            {name: service.port for name, service in self.config.services.items()}, {"http": 80, "https": 443}
        )
        tls = self.config.services["https"].tls
        assert tls is not None and tls.key is not None
        self.assertEqual((str(tls.certificate), str(tls.key)), ("/etc/ssl/shop.crt", "/etc/ssl/shop.key"))

    def test_pools(self) -> None:
        """Upstreams, and a pool for each fixed place."""
        app = self.config.pools["app"]
        self.assertEqual(
            [(str(b.address), b.weight) for b in app.backends.values()], [("10.0.0.21:8000", 3), ("10.0.0.22:80", 1)]
        )
        self.assertEqual(app.policy, "least-outstanding")
        self.assertIn("10.0.0.30-8080", self.config.pools)

    def test_routes(self) -> None:
        """Each name with each prefix."""
        self.assertIn(
            ("app", "*.shop.example.com", "/"), [(route.pool, route.host, route.path) for route in self.config.routes]
        )
        self.assertEqual(len(self.config.routes), 4)

    def test_left_out(self) -> None:
        """Patterns, redirects and header changes are named."""
        notes = "\n".join(self.draft.notes)
        for words in ("location ~ \\.php$", "return 301", "add_header X-Frame-Options DENY; always"):
            self.assertIn(words, notes)


class KeepalivedTests(SynchronousTestCase):
    """``lbarray convert keepalived.conf``."""

    def test_router_and_servers(self) -> None:
        """Nodes, VIP, router and interval; virtual servers as services and pools."""
        draft = from_keepalived(KEEPALIVED)
        found = config(draft)
        self.assertEqual(
            {name: (str(n.address), n.priority) for name, n in found.array.nodes.items()},
            {"a": ("10.0.0.1", 150), "b": ("10.0.0.2", 100)},
        )
        self.assertEqual([str(vip) for vip in found.array.vips], ["10.0.0.100/24"])
        self.assertEqual(
            (found.failover.virtual_router_id, found.failover.interval, found.array.interface), (77, 0.5, "ens3")
        )
        (pool,) = found.pools.values()
        assert pool.check is not None
        self.assertEqual((pool.policy, pool.check.kind, pool.check.path), ("least-outstanding", "http", "/health"))
        self.assertEqual([b.weight for b in pool.backends.values()], [3, 1])
        self.assertIn("authentication", "\n".join(draft.notes))

    def test_braces(self) -> None:
        """Braces that do not match are an error with a line, no guess."""
        for text in ("a {\n b\n", "a\n}\n"):
            self.assertRaises(NotReadable, read_blocks, text, by_line=True)


class DraftTests(SynchronousTestCase):
    """What is written can be read."""

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=40), st.text(max_size=20))
    def test_any_text(self, name: str, cookie: str) -> None:
        """No name breaks out of its quotes."""
        draft = Draft(name="x", services=[DraftService("http", "127.0.0.1", 80, certificate=name)])
        draft.pools = [DraftPool("p", {"w": ("127.0.0.1:80", 1)})]
        draft.notes = []
        found = parse(draft.to_toml())
        self.assertEqual(len(found.services), 1)
        if name and "\0" not in name:
            tls = found.services["http"].tls
            assert tls is not None
            self.assertEqual(str(tls.certificate), str(Path("/") / name))


class InitTests(SynchronousTestCase):
    """``lbarray init``."""

    def run_init(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["init", *arguments])
        return code, out.getvalue(), err.getvalue()

    def test_standalone(self) -> None:
        """One machine: a file that passes the check."""
        path = Path(self.mktemp())
        code, _, err = self.run_init(str(path), "--backends", "127.0.0.1:8001,127.0.0.2", "--port", "8080")
        self.assertEqual((code, err), (0, ""))
        found = parse(path.read_text())
        self.assertEqual(
            [str(b.address) for b in found.pools["web"].backends.values()], ["127.0.0.1:8001", "127.0.0.2:80"]
        )

    def test_array(self) -> None:
        """Several machines: a file that passes the check, and the key for its owner only."""
        folder = Path(self.mktemp())
        folder.mkdir()
        path = folder / "array.toml"
        code, out, _ = self.run_init(
            str(path), "--backends", "10.0.0.21:80", "--nodes", "left=10.0.0.1,10.0.0.2", "--vip", "10.0.0.100/24"
        )
        self.assertEqual(code, 0)
        self.assertIn("--node left", out)
        self.assertEqual((folder / "array.key").stat().st_mode & 0o777, 0o600)
        code = main(["check", str(path)])
        self.assertEqual(code, 0)

    def test_not_twice(self) -> None:
        """A file that is there stays."""
        path = Path(self.mktemp())
        path.write_text("mine")
        code, _, err = self.run_init(str(path), "--backends", "10.0.0.21:80")
        self.assertEqual((code, path.read_text()), (1, "mine"))
        self.assertIn("--force", err)

    def test_what_is_missing(self) -> None:
        """Nodes without an address for clients: asked for."""
        code, _, err = self.run_init(self.mktemp(), "--backends", "10.0.0.21:80", "--nodes", "10.0.0.1")
        self.assertEqual(code, 1)
        self.assertIn("--vip", err)
