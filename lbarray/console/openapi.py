"""The API described in OpenAPI 3.1, made from the same registry that answers."""

from __future__ import annotations

from lbarray.console.actions import Action, Actions, Argument

__all__ = ["document"]

_SCHEMAS = {"text": "string", "integer": "integer", "number": "number", "flag": "boolean"}

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["reason", "message"],
            "properties": {
                "reason": {"type": "string", "description": "a stable word for programs"},
                "message": {"type": "string", "description": "for people: what, where, what to do"},
                "advice": {"type": "string"},
                "problems": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["key", "found", "accepted"],
                        "properties": {key: {"type": "string"} for key in ("key", "found", "accepted")},
                    },
                },
            },
        }
    },
}

_READING = (
    ("/", "text/html", "The dashboard."),
    ("/live", "text/event-stream", "Server-sent events: ``status`` each second, ``happened`` as it happens."),
    ("/status", "application/json", "Everything the node knows of itself and of the array."),
    ("/tables", "text/plain", "The same for people."),
    ("/metrics", "text/plain", "Counters and gauges for Prometheus."),
    ("/healthz", "text/plain", "200 while the node runs."),
    ("/actions", "application/json", "The actions that change something, with their arguments."),
    ("/queries", "application/json", "The questions that can be asked, with their arguments."),
    ("/openapi.json", "application/json", "This document."),
)


def _schema(argument: Argument) -> dict[str, object]:
    schema: dict[str, object] = {"type": _SCHEMAS[argument.kind], "description": argument.help}
    if argument.default is not None:
        schema["default"] = argument.default
    return schema


def _answers() -> dict[str, object]:
    problem = {
        "description": "refused",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    return {
        "200": {"description": "done", "content": {"application/json": {"schema": {"type": "object"}}}},
        "default": problem,
    }


def _post(action: Action) -> dict[str, object]:
    return {
        "operationId": action.name,
        "summary": action.summary,
        "security": [{"token": []}],
        "requestBody": {
            "required": any(argument.required for argument in action.arguments),
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": [argument.name for argument in action.arguments if argument.required],
                        "properties": {argument.name: _schema(argument) for argument in action.arguments},
                    }
                }
            },
        },
        "responses": _answers(),
    }


def _get(action: Action) -> dict[str, object]:
    return {
        "operationId": action.name,
        "summary": action.summary,
        "parameters": [
            {"name": argument.name, "in": "query", "required": argument.required, "schema": _schema(argument)}
            for argument in action.arguments
        ],
        "responses": _answers(),
    }


def document(actions: Actions, version: str) -> dict[str, object]:
    """The whole document, ready for JSON."""
    paths: dict[str, object] = {}
    for path, content_type, summary in _READING:
        content: dict[str, object] = {
            content_type: {"schema": {"type": "object"} if "json" in content_type else {"type": "string"}}
        }
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": "ok", "content": content}}}}
    for action in actions:
        if action.changes:
            paths[f"/actions/{action.name}"] = {"post": _post(action)}
        else:
            paths[f"/queries/{action.name}"] = {"get": _get(action)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lbarray",
            "version": version,
            "description": "One node of a load balancing array. Over the node's Unix socket everything may be done; "
            "over TCP, loopback may read, and changes need the token.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
