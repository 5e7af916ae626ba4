"""Spans of OpenTelemetry, as a collector reads them: OTLP/HTTP in its JSON form
(https://opentelemetry.io/docs/specs/otlp/#otlphttp, https://github.com/open-telemetry/opentelemetry-proto)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

__all__ = ["CLIENT", "SERVER", "Span", "encode"]

#: Kinds of spans, by their numbers in the protocol.
SERVER: Final = 2
CLIENT: Final = 3
_ERROR: Final = 2


class Span(NamedTuple):
    """One piece of work. Ids in hexadecimal digits; times in seconds of whatever clock measured them.

    :ivar parent: empty for none. :ivar error: it failed by our side's fault, or the back end's.
    """

    trace: bytes
    span: bytes
    parent: bytes
    kind: int
    name: str
    began_s: float
    ended_s: float
    attributes: tuple[tuple[str, str | int], ...] = ()
    error: bool = False


def encode(spans: Iterable[Span], resource: Mapping[str, str], version: str, epoch_s: float = 0.0) -> bytes:
    """An ExportTraceServiceRequest.

    :param resource: who recorded them. :param epoch_s: what makes their times seconds since the epoch.
    """
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource.items())},
                    "scopeSpans": [
                        {
                            "scope": {"name": "lbarray", "version": version},
                            "spans": [_span(span, epoch_s) for span in spans],
                        }
                    ],
                }
            ]
        },
        separators=(",", ":"),
    ).encode()


def _span(span: Span, epoch_s: float) -> dict[str, object]:
    found: dict[str, object] = {
        "traceId": span.trace.decode(),
        "spanId": span.span.decode(),
        "name": span.name,
        "kind": span.kind,
        # 64-bit numbers are strings in the JSON form of protocol buffers.
        "startTimeUnixNano": str(int((span.began_s + epoch_s) * 1e9)),
        "endTimeUnixNano": str(int((span.ended_s + epoch_s) * 1e9)),
        "attributes": _attributes(span.attributes),
    }
    if span.parent:
        found["parentSpanId"] = span.parent.decode()
    if span.error:
        found["status"] = {"code": _ERROR}
    return found


def _attributes(pairs: Iterable[tuple[str, str | int]]) -> list[dict[str, object]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in pairs
    ]
