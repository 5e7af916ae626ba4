"""Changing responses, as a service of the node: the filters of the configuration in their order, the CDN's last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IResponseFilter, ITreeFilter
from lbarray.rewrite.cdn import HTML, CdnFilter, Rewriter
from lbarray.rewrite.charset import ascii_inside, charset_of
from lbarray.rewrite.codings import READABLE, coder, decoder
from lbarray.rewrite.contents import Pipeline, Stage
from lbarray.rewrite.memo import Memo, Remembering
from lbarray.rewrite.pages import fits, under
from lbarray.rewrite.plugins import PageContext
from lbarray.rewrite.probes import CdnProbes, ProbeSettings
from lbarray.rewrite.tree import TreeStage, tree_threads
from lbarray.rewrite.validators import adjust, derived, restore
from lbarray.telemetry.counters import Counters
from lbarray.values import ClientAddress

__all__ = ["Chained", "RewriteService"]

_UNTOUCHABLE = (204, 206, 304)


@attrs.frozen
class Chained:
    """A plug-in's filter, and for which requests. ``max_size``: octets of content that it may have as a tree."""

    filter: Any
    host: bytes = b"*"
    path: bytes = b"/"
    max_size: int = 1 << 20


@implementer(IResponseFilter)
class RewriteService(Service):
    """Opens a filter for each response that one of the chain wants to change.

    :param probes: how to ask the CDN's hosts whether they live; ``None``: they are believed to.
    :param memo_octets: of memory for recent results.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        counters: Counters,
        cdn: CdnFilter | None,
        chain: Sequence[Chained] = (),
        probes: ProbeSettings | None = None,
        memo_octets: int = 0,
    ) -> None:
        self._reactor = reactor
        self._counters = counters
        self._threads: ThreadPool | None = None
        self._probes: CdnProbes | None = None
        self._listeners: list[Callable[[dict[str, Any]], None]] = []
        self.reconfigure(cdn=cdn, chain=chain, probes=probes, memo_octets=memo_octets)

    def reconfigure(
        self,
        *,
        cdn: CdnFilter | None,
        chain: Sequence[Chained] = (),
        probes: ProbeSettings | None = None,
        memo_octets: int = 0,
    ) -> None:
        """Responses that begin from now on are changed like this."""
        if self._probes is not None:
            self._probes.stop()
            self._probes = None
        self._cdn = cdn
        self._chain = tuple(chain)
        self._memo = Memo(memo_octets) if cdn is not None and memo_octets else None
        if cdn is not None and probes is not None:
            self._probes = CdnProbes(
                reactor=self._reactor, hosts=cdn.rules.hosts, settings=probes, changed=self._alive_changed
            )
            if self.running:
                self._probes.start()

    @property
    def active(self) -> bool:
        """There is something to change."""
        return self._cdn is not None or bool(self._chain)

    def startService(self) -> None:
        super().startService()
        if self._probes is not None:
            self._probes.start()

    def stopService(self) -> Deferred[Any] | None:
        super().stopService()
        if self._probes is not None:
            self._probes.stop()
        if self._threads is not None:
            # They may be in the middle of a tree: they are not waited for, for the clients are gone.
            threads, self._threads = self._threads, None
            Thread(target=threads.stop, daemon=True).start()
        return None

    # Other processes of this node, which do not ask the CDN themselves

    def _alive_changed(self, hosts: Sequence[str]) -> None:
        if self._cdn is not None:
            self._cdn.rules.set_alive(hosts)
        for tell in self._listeners:
            tell(_alive(hosts))

    def subscribe(self, tell: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Call ``tell`` whenever other hosts of the CDN live, with what :meth:`hear` takes. Returns a callable that
        ends it."""
        self._listeners.append(tell)
        return lambda: self._listeners.remove(tell)

    def snapshot(self) -> list[dict[str, Any]]:
        """All that a process needs to hear that has just begun."""
        if self._probes is None:
            return []
        return [_alive([host for host, health in self._probes.health.items() if health.alive])]

    def hear(self, change: Mapping[str, Any]) -> None:
        """Believe the process that asks the CDN."""
        if self._cdn is not None and self._probes is None:
            self._cdn.rules.set_alive(change["alive"])

    # IResponseFilter

    def prepare(self, request: RequestHead) -> None:
        """Ask for codings that we can read only (RFC 9110 §12.5.3), for pages whole, and by the back end's own tags.

        A part of a page joined to one that was rewritten would be neither, so a reader who navigates gets
        no ranges (RFC 9110 §14.2: they are optional). Media players, who need them, do not ask for HTML.
        """
        tagged = ranged = False
        for place, (name, value) in enumerate(request.fields):
            size = len(name)
            if size == 15 and name.lower() == b"accept-encoding":
                request.fields[place] = (name, _readable(value))
            elif size == 13 and name.lower() == b"if-none-match":
                tagged = True
            elif size == 5 and name.lower() == b"range":
                ranged = True
        if tagged:
            request.notes = restore(request, self._digest)
        if ranged and b"text/html" in (request.get(b"accept") or b"").lower():
            request.remove(b"range")
            request.remove(b"if-range")

    @property
    def _digest(self) -> bytes:
        return self._cdn.rules.digest if self._cdn is not None else b"0"

    def open(self, request: RequestHead, response: ResponseHead, client: ClientAddress) -> Any:
        fields = response.fields[:]
        try:
            return self._open(request, response, client)
        except Exception:
            # Our mistake, not the page's.
            response.fields[:] = fields
            self._counters.add("rewrite_bail_out", "cdn")
            where = (request.host + request.path).decode("latin-1")
            self.log.failure("a response was not looked at, {page}; it goes on as it came", page=where)
            return None

    def _open(self, request: RequestHead, response: ResponseHead, client: ClientAddress) -> Any:
        kind = response.get(b"content-type") or b""
        media_type = kind.partition(b";")[0].strip().lower()
        cdn = self._cdn
        status = response.status
        if status == 304 and request.notes:
            response.fields[:] = [
                (name, derived(value, self._digest) if name.lower() == b"etag" else value)
                for name, value in response.fields
            ]
        stages: list[Callable[[], Any]] = []
        if self._chain:
            self._open_chain(request, response, client, kind, stages)
        if cdn is not None:
            cdn.look(request, response, media_type)
        wanted = cdn is not None and cdn.reads(media_type)
        if not (wanted or stages) or status in _UNTOUCHABLE or status < 200:
            return None
        coding = (response.get(b"content-encoding") or b"").strip().lower()
        if coding == b"identity":
            coding = b""
        if why := self._why_not(response, kind, coding):
            self._counters.add("rewrite_left", why)
            return None
        make = cdn.open(request, response, client, media_type) if cdn is not None and wanted else None
        if make is None and not stages:
            return None
        adjust(response, self._digest)
        if make is not None and media_type == HTML:
            self._counters.add("rewrite_pages")
        if request.method == b"HEAD":
            return None
        return self._opened(request, coding, stages, make)

    def _why_not(self, response: ResponseHead, kind: bytes, coding: bytes) -> str:
        """The counter's label of why nothing of this content is changed."""
        if any(b"no-transform" in value.lower() for value in response.get_all(b"cache-control")):
            return "no_transform"
        if not ascii_inside(kind):
            return "charset"
        return "coding" if coding and decoder(coding) is None else ""

    def _opened(
        self,
        request: RequestHead,
        coding: bytes,
        stages: Sequence[Callable[[], Any]],
        make: Callable[[], Rewriter] | None,
    ) -> Any:
        page = (request.host + request.path).decode("latin-1")

        def pipeline() -> Pipeline:
            rewriter = make() if make is not None else None
            built = [stage() for stage in stages]
            if rewriter is not None:
                built.append(Stage(rewriter, "cdn", page, self._counters))
            return Pipeline(
                built,
                rewriter=rewriter,
                reader=decoder(coding) if coding else None,
                writer=coder(coding) if coding else None,
                counters=self._counters,
                later=lambda call: self._reactor.callLater(0, call),
            )

        memo, cdn = self._memo, self._cdn
        if memo is None or cdn is None or make is None or stages:
            return pipeline()
        key = (request.host, request.path, coding, cdn.rules.digest, cdn.rules.generation)
        return Remembering(memo, key, pipeline, coded=bool(coding), counters=self._counters)

    def _open_chain(
        self,
        request: RequestHead,
        response: ResponseHead,
        client: ClientAddress,
        kind: bytes,
        stages: list[Callable[[], Any]],
    ) -> None:
        charset = charset_of(kind)
        page = PageContext(request=request, client=client, charset=charset or "")
        where = (request.host + request.path).decode("latin-1")
        for chained in self._chain:
            if not fits(request.host, chained.host) or not under(request.path, chained.path):
                continue
            name = chained.filter.name
            before = list(response.fields)
            try:
                opened = chained.filter.open(page, response)
            except Exception:
                response.fields[:] = before
                self._counters.add("rewrite_bail_out", name)
                self.log.failure("the filter {name} failed on {page}; it goes on as it came", name=name, page=where)
                continue
            if opened is None:
                continue
            if ITreeFilter.providedBy(opened):
                stages.append(self._tree_stage(opened, chained, where, charset))
            else:
                stages.append(self._content_stage(opened, name, where))

    def _content_stage(self, opened: Any, name: str, page: str) -> Callable[[], Stage]:
        return lambda: Stage(opened, name, page, self._counters)

    def _tree_stage(self, tree: Any, chained: Chained, page: str, charset: str | None) -> Callable[[], TreeStage]:
        if self._threads is None:
            self._threads = tree_threads()
            self._threads.start()
        threads = self._threads
        return lambda: TreeStage(
            tree,
            name=chained.filter.name,
            page=page,
            charset=charset,
            max_size=chained.max_size,
            counters=self._counters,
            reactor=self._reactor,
            threads=threads,
        )

    def status(self) -> dict[str, object]:
        """What the console shows."""
        counters = self._counters
        found: dict[str, object] = {
            "pages": counters.get("rewrite_pages"),
            "urls": counters.get("rewrite_urls"),
            "tags_left": counters.by_label("rewrite_tags_left"),
            "left": counters.by_label("rewrite_left"),
            "bail_outs": counters.by_label("rewrite_bail_out"),
            "filters": [chained.filter.name for chained in self._chain],
        }
        if self._cdn is not None:
            alive = self._cdn.rules.alive
            found["cdn"] = [origin.decode() for origin in self._cdn.rules.origins]
            found["cdn_failing"] = [origin.decode() for origin in self._cdn.rules.origins if origin not in alive]
        if self._probes is not None:
            found["probes"] = self._probes.status()
        if self._memo is not None:
            hits, misses = (counters.get("rewrite_memo", label) for label in ("hit", "miss"))
            found["memo"] = {"octets": self._memo.octets, "hits": hits, "misses": misses}
        return found


def _alive(hosts: Sequence[str]) -> dict[str, Any]:
    return {"what": "cdn", "alive": list(hosts)}


def _readable(accepted: bytes) -> bytes:
    """An Accept-Encoding without what we cannot read."""
    kept = []
    for item in accepted.split(b","):
        name = item.partition(b";")[0].strip().lower()
        if name in READABLE or name == b"identity":
            kept.append(item.strip())
    return b", ".join(kept) or b"identity"
