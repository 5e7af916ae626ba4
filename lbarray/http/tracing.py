"""W3C Trace Context: a request's trace is passed on, or begun (https://www.w3.org/TR/trace-context/ §3.2)."""

from __future__ import annotations

import re
from random import getrandbits

from lbarray.http.events import RequestHead

__all__ = ["ensure_trace"]

#: Version ``ff`` is forbidden, and so are a trace or a parent of zeros (§3.2.2).
_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?\Z")


def ensure_trace(head: RequestHead) -> bytes:
    """The request's trace id, 32 hexadecimal digits; a request without a trace, or with a broken one, gets one.

    A trace that we begin is not marked as sampled: whether it is recorded is for those to say who record it.
    """
    found = head.get_all(b"traceparent")
    if len(found) == 1 and len(found[0]) <= 256 and (match := _PARENT.match(found[0])):
        return match[1]
    if found:
        # A broken trace is not continued, nor is what vendors said of it (§4.3).
        head.remove(b"traceparent")
        head.remove(b"tracestate")
    trace = b"%032x" % (getrandbits(128) or 1)
    head.fields.append((b"traceparent", b"00-%b-%016x-00" % (trace, getrandbits(64) or 1)))
    return trace
