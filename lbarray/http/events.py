"""The heads of HTTP messages, as every room sees them (RFC 9110 §6, RFC 9112 §2).

Plain slotted classes: one is made for each request, so they cost no more than they must.
Field names and values are octets as they came; names compare through :meth:`Head.get` in lower case.
A head that a parser made holds end-to-end fields alone: what concerns one hop is in attributes (RFC 9110 §7.6.1).
"""

from __future__ import annotations

from lbarray.http.lines import Fields, fields_of

__all__ = ["Fields", "Head", "OwnAnswer", "RequestHead", "ResponseHead"]


class Head:
    """What requests and responses have in common.

    :ivar lines: the fields as they are sent, ``Name: value`` line by line, as long as nobody has asked for ``fields``;
        ``None`` from then on.
    :ivar version: (major, minor) of the message.
    """

    __slots__ = ("_fields", "lines", "version")

    version: tuple[int, int]
    lines: bytes | None
    _fields: Fields | None

    @property
    def fields(self) -> Fields:
        """(name, value) in order of arrival, the name's case as it came. It may be changed in place."""
        fields = self._fields
        if fields is None:
            fields = self._read()
        self.lines = None
        return fields

    @fields.setter
    def fields(self, fields: Fields) -> None:
        self._fields = fields
        self.lines = None

    def _read(self) -> Fields:
        fields = self._fields = fields_of(self.lines or b"")
        return fields

    def get(self, name: bytes) -> bytes | None:
        """The first field of this lower-case ``name``, or ``None``."""
        for key, value in self._fields if self._fields is not None else self._read():
            if key.lower() == name:
                return value
        return None

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of the field of this lower-case ``name``, in order."""
        fields = self._fields if self._fields is not None else self._read()
        return [value for key, value in fields if key.lower() == name]

    def remove(self, name: bytes) -> None:
        """Drop every field of this lower-case ``name``."""
        self.fields[:] = [pair for pair in self.fields if pair[0].lower() != name]

    def replace(self, name: bytes, value: bytes) -> None:
        """Drop every field of ``name`` (any case) and append one with ``value``."""
        self.remove(name.lower())
        self.fields.append((name, value))


class RequestHead(Head):
    """A request's first line and fields.

    :ivar lines: without Host.
    :ivar method: upper-case token.
    :ivar target: the origin form in normal form (:mod:`lbarray.http.target`), beginning with ``/``, or ``*``.
    :ivar host: authority in lower case without port, from the target's absolute form, ``Host`` or ``:authority``.
    :ivar has_body: content follows (a length above zero, or an unknown one).
    :ivar length: octets of content, ``None`` where only its end will tell.
    :ivar authority: the same with its port; what ``Host`` says.
    :ivar upgrade: the protocol that the client would switch to; empty for none that we would (RFC 9110 §7.8).
    :ivar te_trailers: the client reads trailer fields (RFC 9110 §6.5).
    :ivar notes: what a filter of responses noted when it prepared the request.
    :ivar forwarded: what a trusted hop before us says of the client; ``None`` from all others.
    :ivar agent: of the client, for the log, and :ivar referer: likewise; ``None`` where nobody has looked for them.
    """

    __slots__ = (
        "agent",
        "authority",
        "forwarded",
        "has_body",
        "host",
        "length",
        "method",
        "notes",
        "referer",
        "target",
        "te_trailers",
        "upgrade",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        fields: Fields | None,
        version: tuple[int, int] = (1, 1),
        host: bytes = b"",
        has_body: bool = False,
        lines: bytes | None = None,
    ) -> None:
        self._fields = fields
        self.lines = lines
        self.version = version
        self.method = method
        self.target = target
        self.host = host
        self.has_body = has_body
        self.notes: object = None
        self.length: int | None = None if has_body else 0
        self.authority = host
        self.upgrade = b""
        self.te_trailers = False
        self.forwarded: Fields | None = None
        self.agent: bytes | None = None
        self.referer: bytes | None = None

    def _read(self) -> Fields:
        fields = Head._read(self)
        fields.insert(0, (b"Host", self.authority))
        return fields

    @property
    def path(self) -> bytes:
        """The target up to ``?``."""
        return self.target.partition(b"?")[0]

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.host!r} {self.target!r}>"


class ResponseHead(Head):
    """A response's status line and fields. ``reason`` may be empty.

    :ivar upgrade: of a 101: the protocol that follows.
    :ivar has_length: Content-Length is among the fields, as they came.
    """

    __slots__ = ("has_length", "reason", "status", "upgrade")

    def __init__(
        self,
        status: int,
        fields: Fields | None,
        version: tuple[int, int] = (1, 1),
        reason: bytes = b"",
        lines: bytes | None = None,
    ) -> None:
        self._fields = fields
        self.lines = lines
        self.version = version
        self.status = status
        self.reason = reason
        self.upgrade = b""
        self.has_length = False

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status}>"


class OwnAnswer:
    """A whole response that is ours and not a back end's: a redirect, a fixed answer.

    :ivar fields: without Content-Length, which ``content`` says.
    """

    __slots__ = ("content", "fields", "status")

    def __init__(self, status: int, fields: tuple[tuple[bytes, bytes], ...] = (), content: bytes = b"") -> None:
        self.status = status
        self.fields = fields
        self.content = content

    def __repr__(self) -> str:
        return f"<OwnAnswer {self.status}>"
