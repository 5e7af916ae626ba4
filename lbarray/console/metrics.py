"""Counters and gauges for Prometheus (text exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from lbarray.console.view import NodeView
from lbarray.telemetry.durations import BACKENDS, OWN_NAMES, durations_of, ends_of
from lbarray.telemetry.histograms import BUCKETS_S, Histogram

__all__ = ["exposition"]

_BACKEND_GAUGES = ("weight", "outstanding", "idle")
_CIRCUITS = {"closed": 0, "half-open": 1, "open": 2}


class _Collector:
    def __init__(self, view: NodeView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        status = self._view.status()
        families: dict[str, CounterMetricFamily] = {}
        for name, label, value in self._view.counters:
            if name in OWN_NAMES:
                continue
            family = families.get(name)
            if family is None:
                family = CounterMetricFamily(f"lbarray_{name}", f"lbarray counter {name}, by reason", labels=["label"])
                families[name] = family
            family.add_metric([label], value)
        yield from families.values()
        yield from _node(self._view, status)
        yield from _processes(_mapping(status.get("workers")))
        yield from _durations(self._view)
        yield from _scheduler(_mapping(status.get("scheduler")))
        yield from _services(_mapping(status.get("services")))
        yield from _tls(_mapping(status.get("services")))
        yield from _backends(_mapping(status.get("pools")))
        yield from _pools(_mapping(status.get("balancing")))
        yield from _rewriting(_mapping(status.get("rewriting")))
        yield from _members(_mapping(_mapping(status.get("membership")).get("members")))
        yield from _routers(_mapping(_mapping(status.get("failover")).get("routers")))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _node(view: NodeView, status: Mapping[str, object]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "lbarray_build_info", "1; what runs here", labels=["node", "array", "version", "configuration"]
    )
    configuration = str(_mapping(status.get("configuration")).get("version", ""))
    info.add_metric([view.node, view.array, view.version, configuration], 1)
    yield info
    yield GaugeMetricFamily("lbarray_uptime_seconds", "Since the process began", value=view.uptime_s())
    lag = _mapping(status.get("reactor"))
    if lag:
        yield GaugeMetricFamily(
            "lbarray_reactor_lag_seconds",
            "The longest that the event loop came late within a minute",
            value=_number(lag.get("lag_s")),
        )
    members = _mapping(_mapping(status.get("membership")).get("members"))
    if not members:
        return
    missing = _mapping(status.get("membership")).get("missing")
    there = GaugeMetricFamily("lbarray_node_in", "1 while this node hears it, 0 while it is missing", labels=["node"])
    for name in members:
        there.add_metric([name], 1)
    for name in missing if isinstance(missing, list) else []:
        there.add_metric([str(name)], 0)
    yield there
    versions = {_mapping(member).get("configuration") for member in members.values()}
    yield GaugeMetricFamily(
        "lbarray_configurations", "Different configurations that the members run; more than 1 wants a push",
        value=len(versions - {"", None}),
    )  # fmt: skip


def _processes(workers: Mapping[str, object]) -> Iterator[Metric]:
    """Each worker process by its place: use, saturation; those that ended are counters."""
    if not workers:
        return
    gauges = {
        "ready": GaugeMetricFamily("lbarray_worker_process_up", "1 while the process serves", labels=["process"]),
        "cpu": GaugeMetricFamily("lbarray_worker_process_cpu", "Its processor in use, 0 to 1", labels=["process"]),
        "lag_s": GaugeMetricFamily(
            "lbarray_worker_process_lag_seconds",
            "The longest that its event loop came late within a minute",
            labels=["process"],
        ),
        "memory": GaugeMetricFamily("lbarray_worker_process_memory_bytes", "Resident memory", labels=["process"]),
        "connections": GaugeMetricFamily(
            "lbarray_worker_process_connections", "Clients' connections open", labels=["process"]
        ),
    }
    processes = workers.get("processes")
    for process in processes if isinstance(processes, list) else []:
        # Those that are coming or leaving share a place with one that serves.
        if process.get("role") == "serving":
            for key, gauge in gauges.items():
                gauge.add_metric([str(process["place"])], _number(process.get(key)))
    yield from gauges.values()
    yield GaugeMetricFamily(
        "lbarray_worker_generation", "Of the worker processes; 0 is the first", value=_number(workers.get("generation"))
    )


def _durations(view: NodeView) -> Iterator[Metric]:
    """Rate, errors and durations of each route of each service, and of each back end."""
    labels = ["service", "route"]
    yield _histograms(
        HistogramMetricFamily(
            "lbarray_request_duration_seconds", "From a request's head to the end of its response", labels=labels
        ),
        durations_of(view.counters),
    )
    responses = CounterMetricFamily(
        "lbarray_responses",
        "Responses by class of status; 4xx holds clients that had gone",
        labels=[*labels, "status"],
    )
    for key, value in ends_of(view.counters).items():
        responses.add_metric(key, value)
    yield responses
    labels = ["pool", "backend"]
    yield _histograms(
        HistogramMetricFamily(
            "lbarray_backend_request_duration_seconds",
            "From the choice of the back end to the end of its response; the time in the queue is not in it",
            labels=labels,
        ),
        durations_of(view.counters, BACKENDS),
    )
    outcomes = CounterMetricFamily(
        "lbarray_backend_outcomes", "Requests at the back end, by how they ended", labels=[*labels, "outcome"]
    )
    for key, value in ends_of(view.counters, BACKENDS).items():
        outcomes.add_metric(key, value)
    yield outcomes


def _histograms(family: HistogramMetricFamily, durations: Mapping[tuple[str, str], Histogram]) -> HistogramMetricFamily:
    for key, histogram in durations.items():
        running, buckets = 0, []
        for bound, count in zip([*map(str, BUCKETS_S), "+Inf"], histogram.counts, strict=True):
            running += count
            buckets.append((bound, running))
        family.add_metric(key, buckets, histogram.total_s)
    return family


def _services(services: Mapping[str, object]) -> Iterator[Metric]:
    connections = GaugeMetricFamily("lbarray_connections", "Clients' connections open now", labels=["service"])
    requests = CounterMetricFamily("lbarray_requests", "Requests begun", labels=["service"])
    for name, service in services.items():
        values = _mapping(service)
        connections.add_metric([name], _number(values.get("connections")))
        requests.add_metric([name], _number(values.get("requests")))
    yield connections
    yield requests


def _rewriting(rewriting: Mapping[str, object]) -> Iterator[Metric]:
    """The CDN's hosts and the memo; what was rewritten are counters."""
    up = GaugeMetricFamily("lbarray_cdn_host_up", "1 while URLs are written to the CDN's host", labels=["host"])
    for host, probed in _mapping(rewriting.get("probes")).items():
        up.add_metric([host], 1 if _mapping(probed).get("alive") else 0)
    yield up
    memo = _mapping(rewriting.get("memo"))
    if memo:
        octets = GaugeMetricFamily("lbarray_rewrite_memo_octets", "Memory of the results that are kept", labels=[])
        octets.add_metric([], _number(memo.get("octets")))
        yield octets


def _scheduler(scheduler: Mapping[str, object]) -> Iterator[Metric]:
    """What the packet plane has done, by verdict (drops by their reason), and by service and worker."""
    verdicts = CounterMetricFamily("lbarray_plane_packets", "Packets by what became of them", labels=["verdict"])
    for verdict, count in _mapping(scheduler.get("verdicts")).items():
        verdicts.add_metric([verdict], _number(count))
    yield verdicts
    rows = GaugeMetricFamily("lbarray_rows", "Rows of the Maglev table that a worker has", labels=["worker"])
    for worker, values in _mapping(scheduler.get("workers")).items():
        rows.add_metric([worker], _number(_mapping(values).get("rows")))
    yield rows
    labels = ["service", "worker"]
    shares = {
        "packets": CounterMetricFamily("lbarray_worker_packets", "Packets given to a worker", labels=labels),
        "octets": CounterMetricFamily("lbarray_worker_octets", "Octets given to a worker", labels=labels),
        "connections": CounterMetricFamily("lbarray_worker_connections", "Connections begun there", labels=labels),
        "cached": CounterMetricFamily(
            "lbarray_worker_cache_hits", "Packets whose worker was remembered", labels=labels
        ),
        "passed_on": CounterMetricFamily(
            "lbarray_worker_second_chances", "Packets passed on by a worker that did not know them", labels=labels
        ),
        "chosen": CounterMetricFamily(
            "lbarray_worker_chosen", "Connections begun there since another was more loaded", labels=labels
        ),
    }
    for service, workers in _mapping(scheduler.get("services")).items():
        for worker, share in _mapping(workers).items():
            for key, family in shares.items():
                family.add_metric([service, worker], _number(_mapping(share).get(key)))
    yield from shares.values()


def _members(members: Mapping[str, object]) -> Iterator[Metric]:
    """What every node says of itself, as this one hears it."""
    gauges = {
        "connections": GaugeMetricFamily("lbarray_node_connections", "Clients' connections open", labels=["node"]),
        "cpu": GaugeMetricFamily("lbarray_node_cpu", "Processors in use, 0 to 1", labels=["node"]),
        "accept_queue": GaugeMetricFamily("lbarray_node_accept_queue", "Clients that wait", labels=["node"]),
        "share": GaugeMetricFamily("lbarray_node_share", "Part of its weight that it takes, 0 to 1", labels=["node"]),
        "accepting": GaugeMetricFamily("lbarray_node_accepting", "1 when its listeners accept", labels=["node"]),
        "draining": GaugeMetricFamily("lbarray_node_draining", "1 when it takes no new clients", labels=["node"]),
    }
    for name, member in members.items():
        for key, gauge in gauges.items():
            gauge.add_metric([name], _number(_mapping(member).get(key)))
    yield from gauges.values()


def _routers(routers: Mapping[str, object]) -> Iterator[Metric]:
    """By VIP; advertisements in and out are counters by router."""
    labels = ["vip", "router"]
    owner = GaugeMetricFamily("lbarray_vip_owner", "1 when this node owns the VIP", labels=labels)
    fit = GaugeMetricFamily("lbarray_vip_fit", "1 when this node may own the VIP", labels=labels)
    priority = GaugeMetricFamily("lbarray_vip_priority", "What this node advertises, 1 to 255", labels=labels)
    transitions = CounterMetricFamily("lbarray_vip_transitions", "VIP taken or given up here", labels=labels)
    takeover = GaugeMetricFamily(
        "lbarray_vip_last_takeover_seconds", "From the last owner's last word until the VIP was here", labels=labels
    )
    for name, router in routers.items():
        values = _mapping(router)
        vips = values.get("vips")
        for vip in vips if isinstance(vips, list) else []:
            place = [str(vip).partition("/")[0], name]
            owner.add_metric(place, 1 if values.get("state") == "active" else 0)
            fit.add_metric(place, 0 if values.get("state") == "unfit" else 1)
            priority.add_metric(place, _number(values.get("priority")))
            transitions.add_metric(place, _number(values.get("transitions")))
            if values.get("takeover_s") is not None:
                takeover.add_metric(place, _number(values.get("takeover_s")))
    yield from (owner, fit, priority, transitions, takeover)


def _tls(services: Mapping[str, object]) -> Iterator[Metric]:
    expiry = GaugeMetricFamily(
        "lbarray_certificate_expiry_seconds", "Until a certificate ends; negative after", labels=["service", "file"]
    )
    handshakes = CounterMetricFamily("lbarray_tls_handshakes", "Handshakes done", labels=["service", "kind"])
    for name, service in services.items():
        values = _mapping(service)
        if "certificates" not in values:
            continue
        handshakes.add_metric([name, "full"], _number(values.get("handshakes")))
        handshakes.add_metric([name, "resumed"], _number(values.get("resumed")))
        certificates = values["certificates"]
        for each in certificates if isinstance(certificates, list) else []:
            expiry.add_metric([name, str(each["file"])], each["days_left"] * 86400.0)
    yield expiry
    yield handshakes


def _backends(pools: Mapping[str, object]) -> Iterator[Metric]:
    labels = ["pool", "backend"]
    up = GaugeMetricFamily("lbarray_backend_up", "1 when the back end may have requests", labels=labels)
    gauges = {
        key: GaugeMetricFamily(f"lbarray_backend_{key}", f"Back end: {key} now", labels=labels)
        for key in _BACKEND_GAUGES
    }
    circuit = GaugeMetricFamily(
        "lbarray_backend_circuit", "0: closed, requests flow; 1: half-open, on trial; 2: open, ejected", labels=labels
    )
    requests = CounterMetricFamily("lbarray_backend_requests", "Requests given to the back end", labels=labels)
    failures = CounterMetricFamily("lbarray_backend_failed", "Requests that it failed", labels=labels)
    for pool, members in pools.items():
        for name, member in _mapping(members).items():
            values = _mapping(member)
            up.add_metric([pool, name], 0 if values.get("state") in ("down", "ejected") else 1)
            circuit.add_metric([pool, name], _CIRCUITS.get(str(values.get("circuit")), 0))
            for key, gauge in gauges.items():
                gauge.add_metric([pool, name], _number(values.get(key)))
            requests.add_metric([pool, name], _number(values.get("requests")))
            failures.add_metric([pool, name], _number(values.get("failures")))
    yield from (up, circuit, *gauges.values(), requests, failures)


def _pools(pools: Mapping[str, object]) -> Iterator[Metric]:
    labels = ["pool"]
    gauges = {
        "fit": GaugeMetricFamily("lbarray_pool_fit", "Back ends that may have new requests", labels=labels),
        "outstanding": GaugeMetricFamily("lbarray_pool_outstanding", "Requests in hand", labels=labels),
        "idle": GaugeMetricFamily("lbarray_pool_idle", "Connections that wait for a request", labels=labels),
        "queued": GaugeMetricFamily("lbarray_pool_queued", "Requests that wait for room", labels=labels),
    }
    retries = CounterMetricFamily("lbarray_pool_retries", "Requests that went to another back end", labels=labels)
    for name, pool in pools.items():
        values = _mapping(pool)
        for key, gauge in gauges.items():
            gauge.add_metric([name], _number(values.get(key)))
        retries.add_metric([name], _number(values.get("retries")))
    yield from (*gauges.values(), retries)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def exposition(view: NodeView) -> str:
    """The whole text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(view))
    # Processor time, memory and descriptors of this process, by the names that everybody uses.
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()
