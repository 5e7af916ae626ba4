"""``[tracing]``: spans of requests for a collector of traces."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import Accepts, PathText, Text, between, number

__all__ = ["Tracing"]


def _url(found: object) -> str:
    if not isinstance(found, str) or not found.startswith(("http://", "https://")) or not found.isascii():
        raise ValueError(found)
    return found


@attrs.frozen
class Tracing:
    """``[tracing]``: each recorded request leaves two spans, its own and that of asking the back end, which goes there
    as ``traceparent``. They are sent to a collector as OTLP over HTTP (JSON), from a queue that holds no request up.

    :ivar endpoint: the collector's URL, such as ``http://127.0.0.1:4318/v1/traces``; without it nothing is recorded.
    :ivar percent: how many of 100 requests that come without a trace are recorded. Those that come with one are
        recorded when it is marked as sampled.
    :ivar token_file: a file whose first line goes along as ``Authorization: Bearer``.
    :ivar name: what the collector calls the array (``service.name``).
    :ivar queue: spans that wait while the collector is slow or away; more are dropped and counted (``spans_dropped``).
    """

    endpoint: Annotated[str, Accepts(_url, "a URL that begins with http:// or https://")] | None = None
    percent: Annotated[float, number(0.0, 100.0)] = 1.0
    token_file: PathText | None = None
    name: Text = "lbarray"
    queue: Annotated[int, between(512, 1_000_000)] = 8192
