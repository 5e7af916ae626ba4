"""W3C Trace Context: a request's trace is passed on, or begun (https://www.w3.org/TR/trace-context/ §3.2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import getrandbits
from typing import NamedTuple

from lbarray.http.events import RequestHead

__all__ = ["Recorded", "ensure_trace", "follow_trace"]

#: Version ``ff`` is forbidden, and so are a trace or a parent of zeros (§3.2.2).
_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")


class Recorded(NamedTuple):
    """A request of which spans are recorded: ids in hexadecimal digits.

    :ivar trace: 32 of them. :ivar parent: the span of whoever asked us, 16; empty where the trace begins here.
    :ivar span: our own. :ivar asking: of our asking the back end, which the back end's spans have as their parent.
    """

    trace: bytes
    parent: bytes
    span: bytes
    asking: bytes


def ensure_trace(head: RequestHead) -> bytes:
    """The request's trace id, 32 hexadecimal digits; a request without a trace, or with a broken one, gets one.

    A trace that we begin is not marked as sampled: whether it is recorded is for those to say who record it.
    """
    match = _found(head)
    if match is not None:
        return match[1]
    trace = b"%032x" % (getrandbits(128) or 1)
    head.fields.append((b"traceparent", b"00-%b-%b-00" % (trace, _span())))
    return trace


def follow_trace(head: RequestHead, samples: Callable[[], bool]) -> tuple[bytes, Recorded | None]:
    """As :func:`ensure_trace`, where spans are recorded: those of a trace that comes sampled, and of what
    ``samples`` says of those that begin here. Then the back end sees our span as the parent.

    :returns: the trace id, and what to record.
    """
    match = _found(head)
    if match is not None:
        trace, parent, flags = match[1], match[2], int(match[3], 16)
        if not flags & 1:
            return trace, None
        head.remove(b"traceparent")
    else:
        trace, parent, flags = b"%032x" % (getrandbits(128) or 1), b"", int(samples())
        if not flags:
            head.fields.append((b"traceparent", b"00-%b-%b-00" % (trace, _span())))
            return trace, None
    recorded = Recorded(trace, parent, _span(), _span())
    # What we send is of version 00, whatever came (§4.2): only its flags are known.
    head.fields.append((b"traceparent", b"00-%b-%b-%02x" % (trace, recorded.asking, flags & 3)))
    return trace, recorded


def _found(head: RequestHead) -> re.Match[bytes] | None:
    found = head.get_all(b"traceparent")
    if len(found) == 1 and len(found[0]) <= 256 and (match := _PARENT.match(found[0])):
        return match
    if found:
        # A broken trace is not continued, nor is what vendors said of it (§4.3).
        head.remove(b"traceparent")
        head.remove(b"tracestate")
    return None


def _span() -> bytes:
    return b"%016x" % (getrandbits(64) or 1)
