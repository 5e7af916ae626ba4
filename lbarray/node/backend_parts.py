"""The back ends of a node: routes, pools, policies, persistence and checks, from a configuration."""

from __future__ import annotations

import hmac
import random
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.names.client import Resolver

from lbarray.backends.actions import FieldEdits, Mirror, Redirect, Rewrite, Route, Split, Template
from lbarray.backends.concurrency import AdaptiveLimit
from lbarray.backends.connections import IdleConnections
from lbarray.backends.discovery import Discovery
from lbarray.backends.ejection import Ejector, EjectRules
from lbarray.backends.health import Health
from lbarray.backends.keys import key_reader
from lbarray.backends.matching import FieldTest, Match
from lbarray.backends.persistence.cookie import CookiePersistence
from lbarray.backends.persistence.groups import GroupPersistence
from lbarray.backends.persistence.learnt import LearntPersistence, SessionTable
from lbarray.backends.persistence.tls_session import TlsSessionPersistence
from lbarray.backends.pool import Member, Pool, PoolLimits
from lbarray.backends.routes import RouteTable
from lbarray.backends.service import BackendsService
from lbarray.backends.watching import Watch
from lbarray.config import pools as pool_config
from lbarray.config import routes as route_config
from lbarray.config.model import Config
from lbarray.config.problems import nearest
from lbarray.errors import BadConfig, Problem
from lbarray.http.events import OwnAnswer
from lbarray.plugin import IBalancePolicyMaker, IHealthProbeMaker, PolicySettings, makers
from lbarray.telemetry.counters import Counters
from lbarray.values import BackendAddress, Handling

__all__ = ["backends_settings", "make_backends", "unknown_plugins"]


def unknown_plugins(config: Config) -> list[Problem]:
    """Policies and checks that a configuration names and that are not installed."""
    policies, probes = makers(IBalancePolicyMaker), makers(IHealthProbeMaker)
    problems = []
    for name, pool in config.pools.items():
        if pool.policy not in policies:
            problems.append(Problem(f"pools.{name}.policy", f'"{pool.policy}"', nearest(pool.policy, policies)))
        if pool.check is not None and pool.check.kind not in probes:
            kind = pool.check.kind
            problems.append(Problem(f"pools.{name}.check.kind", f'"{kind}"', nearest(kind, probes)))
    return problems


def make_backends(*, reactor: Any, config: Config, secret: bytes, counters: Counters) -> BackendsService:
    """Routes, pools and their health checks.

    :raises BadConfig: a policy or a check is named that is not installed.
    """
    return BackendsService(
        reactor=reactor, counters=counters, **backends_settings(reactor=reactor, config=config, secret=secret)
    )


def backends_settings(*, reactor: Any, config: Config, secret: bytes) -> dict[str, Any]:
    """What of a configuration the back ends follow: at the start, and by ``reconfigure`` while they run.

    :raises BadConfig: a policy or a check is named that is not installed.
    """
    problems = unknown_plugins(config)
    if problems:
        raise BadConfig(problems)

    def member(pool: str, name: str, host: str, port: int, weight: int) -> Member:
        return _member(pool, name, config.pools[pool], _bare(host, port, weight), reactor.seconds())

    routes = [(route.services, _match(route), _route(route, secret)) for route in config.routes]
    if not routes:
        routes = [((), Match(), Route(pool=next(iter(config.pools)), handling=Handling(route="*/", retry_broken=True)))]
    return {
        "pools": [_pool(reactor, name, pool, secret) for name, pool in config.pools.items()],
        "routes": {
            config.service_id(name): RouteTable(
                (match, route) for services, match, route in routes if not services or name in services
            )
            for name in config.services
        },
        "watches": {
            name: Watch(
                probe=makers(IHealthProbeMaker)[pool.check.kind].make(reactor, _check(pool, pool.check)),
                interval_s=pool.check.interval,
                shared=pool.check.shared and not config.standalone,
            )
            for name, pool in config.pools.items()
            if pool.check is not None
        },
        "make_member": member,
        "discoveries": {
            name: _discovery(reactor, name, pool.discover)
            for name, pool in config.pools.items()
            if pool.discover is not None
        },
    }


def _check(pool: pool_config.Pool, check: pool_config.Check) -> pool_config.Check:
    """With what it has of the pool."""
    return attrs.evolve(
        check,
        tls=pool.tls is not None if check.tls is None else check.tls,
        proxy_protocol=check.proxy_protocol or pool.proxy_protocol,
    )


def _discovery(reactor: Any, pool: str, settings: pool_config.Discover) -> Discovery:
    servers = [(place.host, place.port) for place in settings.servers]
    return Discovery(
        reactor=reactor,
        resolver=Resolver(resolv=None if servers else "/etc/resolv.conf", servers=servers or None, reactor=reactor),
        pool=pool,
        name=settings.name,
        kind=settings.kind,
        port=settings.port,
        shortest_s=settings.shortest,
        longest_s=settings.longest,
        made_of=settings,
    )


def _seed(secret: bytes, purpose: str) -> bytes:
    """A key of its own for each purpose, the same on every node."""
    return hmac.digest(secret.strip(), f"lbarray {purpose}".encode(), "sha256")


# Pools


def _bare(host: str, port: int, weight: int) -> pool_config.Backend:
    from lbarray.config.scalars import HostPort

    return pool_config.Backend(address=HostPort(host, port), weight=weight)


def _member(pool: str, name: str, settings: pool_config.Pool, backend: pool_config.Backend, now: float) -> Member:
    check = settings.check
    limits = [limit for limit in (backend.max_requests, backend.max_connections) if limit]
    # A connection that began with a client's PROXY header is that client's.
    most_idle = 0 if settings.proxy_protocol else min(settings.max_idle, backend.max_connections or settings.max_idle)
    return Member(
        address=BackendAddress(pool, name, backend.address.host, backend.address.port),
        weight=backend.weight,
        # A worker process has no checks of its own, and is told; what its requests meet with counts as a look too.
        health=Health(rise=check.rise if check else 2, fall=check.fall if check else 3, now=now),
        idle=IdleConnections(max_idle=most_idle, idle_timeout_s=settings.idle_timeout),
        # With HTTP/1.1 each request in hand has a connection of its own, so the smaller of the two counts.
        max_requests=min(limits, default=0),
        backup=backend.backup,
        draining=backend.drain,
    )


def _pool(reactor: Any, name: str, pool: pool_config.Pool, secret: bytes) -> Pool:
    policy_settings = PolicySettings(
        seconds=reactor.seconds,
        chance=random.Random(),
        seed=_seed(secret, f"policy {name}"),
        slack=pool.slack / 100.0,
    )
    eject = pool.eject
    rules = EjectRules(
        consecutive=eject.consecutive,
        error_ratio=eject.error_percent / 100.0,
        latency_factor=eject.latency_factor,
        min_requests=eject.min_requests,
        window_s=eject.window,
        base_s=eject.base,
        longest_s=eject.longest,
        min_fit=eject.min_percent / 100.0,
    )
    return Pool(
        name=name,
        members=[
            _member(name, backend_name, pool, backend, reactor.seconds())
            for backend_name, backend in pool.backends.items()
        ],
        policy=makers(IBalancePolicyMaker)[pool.policy].make(policy_settings),
        persistence=_persistence(reactor, name, pool.persistence, secret),
        limits=PoolLimits(
            max_requests=pool.max_requests,
            max_connections=pool.max_connections,
            queue=pool.queue,
            queue_timeout_s=pool.queue_timeout,
            retries=pool.retries,
            retry_share=pool.retry_percent / 100.0,
            slow_start_s=pool.slow_start or 0.0,
            adaptive=AdaptiveLimit if pool.concurrency == "adaptive" else None,
        ),
        ejector=Ejector(rules) if rules.active else None,
        key_of=key_reader(pool.hash_by) if pool.policy == "consistent-hash" else None,
        made_of=((pool.policy, pool.slack), pool.persistence),
    )


def _persistence(reactor: Any, name: str, settings: pool_config.Persistence | None, secret: bytes) -> Any:
    if settings is None:
        return None
    if settings.kind == "cookie":
        return CookiePersistence(
            cookie=settings.cookie,
            secret=secret,
            same_site=settings.same_site,
            strip=settings.strip,
            secure=settings.secure,
            http_only=settings.http_only,
            path=settings.path,
            domain=settings.domain or "",
            max_age_s=None if settings.max_age is None else int(settings.max_age),
        )
    if settings.kind == "hash":
        return GroupPersistence(
            key_of=key_reader(settings.by, prefix4=settings.prefix4, prefix6=settings.prefix6),
            seed=_seed(secret, f"groups {name}"),
            seconds=reactor.seconds,
            groups=settings.groups,
            idle_s=settings.idle,
        )
    table = SessionTable(most=settings.entries, ttl_s=settings.ttl, seconds=reactor.seconds)
    if settings.kind == "tls":
        return TlsSessionPersistence(
            table=table, seed=_seed(secret, f"sessions {name}"), prefix4=settings.prefix4, prefix6=settings.prefix6
        )
    return LearntPersistence(
        table=table,
        seed=_seed(secret, f"sessions {name}"),
        cookie=settings.session_cookie or "",
        header=settings.session_header or "",
        query=settings.session_query or "",
    )


# Routes


def _tests(wanted: Mapping[str, str | bool]) -> tuple[FieldTest, ...]:
    return tuple(
        FieldTest(name, present=value) if isinstance(value, bool) else FieldTest(name, value)
        for name, value in wanted.items()
    )


def _match(route: route_config.Route) -> Match:
    return Match(
        host=route.host,
        path=route.path,
        exact=route.path_exact,
        regex=route.path_regex,
        methods=route.methods,
        headers=_tests(route.headers),
        query=_tests(route.query),
        networks=route.networks,
    )


def _edits(edits: route_config.Edits) -> FieldEdits:
    return FieldEdits(
        remove=edits.remove,
        set_to={name: Template(text) for name, text in edits.set.items()},
        add={name: Template(text) for name, text in edits.add.items()},
    )


def _route(route: route_config.Route, secret: bytes) -> Route:
    rewrite = None
    if route.rewrite is not None:
        rewrite = Rewrite(
            matched=route.path, prefix=route.rewrite.prefix, regex=route.rewrite.regex, to=route.rewrite.to
        )
    split = None
    if route.split:
        weights = {name: weight for name, weight in route.split.items() if weight}
        split = Split(weights, sticky=route.sticky, seed=_seed(secret, "split"), chance=random.Random())
    answer = None
    if route.answer is not None:
        fields = ((b"Content-Type", route.answer.content_type.encode()),)
        answer = OwnAnswer(route.answer.status, fields, route.answer.content.encode())
    return Route(
        pool=route.pool,
        split=split,
        redirect=Redirect(Template(route.redirect.to), route.redirect.status) if route.redirect is not None else None,
        answer=answer,
        mirror=Mirror(route.mirror.pool, route.mirror.percent) if route.mirror is not None else None,
        rewrite=rewrite,
        request_edits=_edits(route.request_fields),
        response_edits=_edits(route.response_fields),
        handling=Handling(
            max_body=route.max_body,
            response_timeout_s=route.response_timeout,
            route=route.label,
            retry_statuses=frozenset(route.retry_statuses),
            retry_broken=route.retry_broken,
        ),
        priority=route.priority,
    )
