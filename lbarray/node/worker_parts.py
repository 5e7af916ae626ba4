"""The parts that serve clients: the rewriting filter, the listeners."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from lbarray.backends.service import BackendsService
from lbarray.config import pools as pool_config
from lbarray.config.model import Config
from lbarray.config.services import Tls
from lbarray.errors import SystemRefused
from lbarray.http.forwarding import Forwarding
from lbarray.http.limits import Limits
from lbarray.node.rewriting import rewriting_settings
from lbarray.rewrite.service import RewriteService
from lbarray.telemetry.access_log import AccessLog
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.export import SpanExporter, TracingSettings
from lbarray.worker.plugins import service_protocol
from lbarray.worker.service import ListenerSpec, WorkerService
from lbarray.worker.settings import HttpSettings
from lbarray.worker.tls.backend import BackendTlsSettings
from lbarray.worker.tls.certificates import CertificateFiles
from lbarray.worker.tls.contexts import ClientCertificates
from lbarray.worker.tls.settings import TlsSettings

__all__ = ["listener_specs", "make_access_log", "make_rewriting", "make_tracing", "make_worker", "worker_settings"]


def make_rewriting(*, reactor: Any, config: Config, counters: Counters) -> RewriteService:
    """The filters of ``[cdn]`` and ``[[filters]]``.

    :raises BadConfig: a plug-in is not there, or does not accept its options.
    """
    return RewriteService(reactor=reactor, counters=counters, **rewriting_settings(config=config, counters=counters))


def _tls(tls: Tls, tells_sessions: bool) -> TlsSettings:
    return TlsSettings(
        files=tuple(CertificateFiles(each.certificate, each.key, each.ocsp) for each in (tls, *tls.certificates)),
        strict=tls.strict,
        profile=tls.profile,
        clients=ClientCertificates(tls.client_certificates, tls.client_ca),
        handshake_timeout_s=tls.handshake_timeout,
        handshakes_at_once=tls.handshakes_at_once,
        handshakes_per_second=tls.handshakes_per_second,
        reload_s=tls.reload,
        tells_sessions=tells_sessions,
    )


def _backend_tls(name: str, tls: pool_config.PoolTls) -> BackendTlsSettings:
    return BackendTlsSettings(
        key_path=f"pools.{name}.tls",
        verify=tls.verify,
        ca=tls.ca,
        name=tls.name,
        certificate=tls.certificate,
        key=tls.key,
    )


def make_worker(
    *,
    reactor: Any,
    config: Config,
    node_name: str,
    backends: BackendsService,
    rewriting: RewriteService,
    counters: Counters,
    listening: Callable[[ListenerSpec], socket.socket] | None = None,
    counts: Any = None,
    share: Callable[[ListenerSpec], ListenerSpec] | None = None,
) -> WorkerService:
    """The listeners of every service. ``listening``, ``counts``, ``share``: of a process that is one of several."""
    return WorkerService(
        reactor=reactor,
        requests=backends,
        counters=counters,
        listening=listening,
        counts=counts,
        access_log=make_access_log(config=config, node_name=node_name, counters=counters),
        tracing=make_tracing(reactor=reactor, config=config, node_name=node_name, counters=counters),
        **worker_settings(config=config, node_name=node_name, rewriting=rewriting, share=share),
    )


def make_access_log(*, config: Config, node_name: str, counters: Counters) -> AccessLog | None:
    """The log of ``[access_log]``."""
    wanted = config.access_log
    if not wanted.enabled:
        return None
    path = wanted.path or config.array.state_dir / f"access-{node_name}.log"
    return AccessLog(path=path, style=wanted.format, counters=counters, required=wanted.path is not None)


def make_tracing(*, reactor: Any, config: Config, node_name: str, counters: Counters) -> SpanExporter | None:
    """The export of ``[tracing]``.

    :raises SystemRefused: its token cannot be read.
    """
    wanted = config.tracing
    if wanted.endpoint is None:
        return None
    from lbarray.node.identity import program_version  # brings netlink

    token = ""
    if wanted.token_file is not None:
        try:
            token = wanted.token_file.read_text().partition("\n")[0].strip()
        except OSError as error:
            raise SystemRefused(
                f"read the trace collector's token {wanted.token_file}",
                errno=error.errno or 0,
                advice="see tracing.token_file, and who may read that file",
            ) from None
    settings = TracingSettings(
        endpoint=wanted.endpoint,
        percent=wanted.percent,
        queue=wanted.queue,
        token=token,
        resource={
            "service.name": wanted.name,
            "service.namespace": config.array.name,
            "service.instance.id": node_name,
            "service.version": program_version(),
        },
        version=program_version(),
    )
    return SpanExporter(reactor=reactor, settings=settings, counters=counters)


def listener_specs(config: Config, node_name: str, *, opened: bool = False) -> list[ListenerSpec]:
    """What to listen for, in the order of the configuration.

    :param opened: another process has opened the sockets, so what only they need to know is left out.
    """
    room: dict[int, int] = {}
    if not opened:
        from lbarray.node.plane import segments_through_tunnels  # a worker process does without netlink

        room = segments_through_tunnels(config, node_name)
    by_session = any(pool.persistence and pool.persistence.kind == "tls" for pool in config.pools.values())
    return [
        ListenerSpec(
            name=name,
            service_id=config.service_id(name),
            protocol=service_protocol(service.protocol, f"services.{name}.protocol"),
            http=HttpSettings(upgrades=service.upgrades, http2=service.http2, h2c=service.h2c),
            tls=_tls(service.tls, by_session) if service.tls else None,
            proxies=service.proxies,
            mss=config.worker.mss or room.get(config.service_id(name).address.version, 0),
        )
        for name, service in config.services.items()
    ]


def worker_settings(
    *,
    config: Config,
    node_name: str,
    rewriting: RewriteService,
    share: Callable[[ListenerSpec], ListenerSpec] | None = None,
) -> dict[str, Any]:
    """What of a configuration the worker follows: at the start, and by ``reconfigure`` while it runs.

    :param share: of a process that is one of several: makes of a service what this one has of it.
    """
    worker = config.worker
    listeners = listener_specs(config, node_name, opened=share is not None)
    return {
        "listeners": listeners if share is None else [share(spec) for spec in listeners],
        "filters": [rewriting] if rewriting.active else [],
        "limits": Limits(
            max_head=worker.max_head,
            max_body=worker.max_body,
            header_timeout_s=worker.header_timeout,
            keepalive_timeout_s=worker.keepalive_timeout,
            connect_timeout_s=worker.connect_timeout,
            response_timeout_s=worker.response_timeout,
            body_timeout_s=worker.body_timeout,
            body_rate=worker.body_rate,
            tunnel_timeout_s=worker.tunnel_timeout,
            max_connections=worker.max_connections,
            client_connections=worker.client_connections,
            client_requests_per_s=worker.client_requests,
            client_burst=worker.client_burst,
        ),
        "forwarding": Forwarding(
            style=worker.forwarded, trusted=[hop.network for hop in worker.trusted_hops], traces=worker.traces
        ),
        "node_name": node_name if worker.expose else "",
        "stop_grace_s": worker.stop_grace,
        "backend_tls": {name: _backend_tls(name, pool.tls) for name, pool in config.pools.items() if pool.tls},
        "proxy_protocol": {name: pool.proxy_protocol for name, pool in config.pools.items() if pool.proxy_protocol},
    }
