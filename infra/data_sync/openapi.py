"""What the API says of itself: an OpenAPI 3.1 document with every path, code and key (https://spec.openapis.org/oas/v3.1.1).

The tests hold the API to it.
"""

from __future__ import annotations

from typing import Any, Final

from infra.data_sync.answers import PROBLEM
from infra.data_sync.formats import CSV, EDN, JSON
from infra.data_sync.results import COLUMNS
from infra.data_sync.status import LATEST
from infra.data_sync.syncs import MOST
from shared.outcome import Outcome

Document = dict[str, Any]

_INTRODUCTION: Final = """\
Files in, files out. A data sync is an import, a deletion or an export; each of its executions is a launch.

Answers are JSON or EDN, by `Accept`, then by `Content-Type`, JSON otherwise. HEAD is answered wherever GET is, and
another method than those that are listed with 405 and `Allow`. What is no 200 is problem+json (RFC 9457) in any case.
"""
_REFUSALS: Final = {
    "400": "The form is malformed or breaks off, has no part called `file` or two of them, or the file is empty.",
    "403": "The data sync asks for a token, and none of its own was given.",
    "404": "There is no such data sync, or no such launch of it.",
    "405": "Another method is needed: `Allow` names it.",
    "408": "The file came too slowly.",
    "409": "The data sync is disabled.",
    "413": "The file is larger than the data sync takes.",
    "415": "The body is no multipart/form-data, or the file is compressed.",
    "500": "Something failed inside.",
    "503": "The service is stopping: send it again.",
}
_EVERYWHERE: Final = ("403", "404", "500", "503")
_INSTANT: Final = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}$", "description": "UTC."}
_LAUNCH_ID: Final = {"type": "integer", "format": "int64", "minimum": 1, "maximum": 999_999_999_999_999}
_LAUNCH_EXAMPLE: Final = {
    "id": 1_790_000_000_000,
    "status": "finished",
    "scheduled-time": "2026-09-21T13:46:40",
    "started-at": "2026-09-21T13:46:41",
    "status-message": "2 of 1000 rows were refused",
}
_STATUS_EXAMPLE: Final = {
    "name": "Customers",
    "status": "enabled",
    "latest-launch": _LAUNCH_EXAMPLE,
    "next-launch": "2026-09-22T13:00:00",
}
_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "Of the data sync.",
    "schema": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "minLength": 1, "maxLength": 200},
    "example": "customers",
}
_LAUNCH: Final = {
    "name": "launch_id",
    "in": "path",
    "required": True,
    "description": "Of a launch, as `latest-launches` gives it.",
    "schema": _LAUNCH_ID,
    "example": 1_790_000_000_000,
}


def document() -> Document:
    bring = {
        "requestBody": _form(),
        "responses": {"200": _text("The file is stored, and its launch is queued.")}
        | _refusals("400", *_EVERYWHERE, "408", "409", "413", "415"),
    }
    file = {"responses": {"200": _file()} | _refusals(*_EVERYWHERE)}
    base = "/api/data-sync"
    return {
        "openapi": "3.1.1",
        "info": {"title": "Data syncs", "version": "1.0.0", "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": {
            f"{base}/openapi.json": {"get": _operation("describe", "This document.", **_described())},
            f"{base}/import/{{id}}": {
                "parameters": [_ID],
                "post": _operation("import", "Sends a file to an import, or to a deletion.", **bring),
            },
            f"{base}/delete/{{id}}": {
                "parameters": [_ID],
                "post": _operation("delete", "Sends a file to a deletion.", **bring),
            },
            f"{base}/export/{{id}}": {
                "parameters": [_ID],
                "get": _operation("export", "The file of the last launch that succeeded.", **file),
            },
            f"{base}/{{id}}": {
                "parameters": [_ID],
                "get": _operation("status", "How a data sync stands.", responses=_answers("Status", _STATUS_EXAMPLE)),
            },
            f"{base}/{{id}}/latest-launches": {
                "parameters": [_ID],
                "get": _operation(
                    "latestLaunches", "Its launches, newest first.", responses=_answers("Launches", [_LAUNCH_EXAMPLE])
                ),
            },
            f"{base}/{{id}}/{{launch_id}}": {
                "parameters": [_ID, _LAUNCH],
                "get": _operation("launch", "How a launch stands.", responses=_answers("Launch", _LAUNCH_EXAMPLE)),
                "delete": _operation(
                    "cancel",
                    "Cancels a launch that has not begun.",
                    responses=_answers("Launch", _LAUNCH_EXAMPLE | {"status": "cancelled"})
                    | _refusals("409", meaning="It has begun or was cancelled before."),
                ),
            },
            f"{base}/{{id}}/{{launch_id}}/download": {
                "parameters": [_ID, _LAUNCH],
                "get": _operation("download", "The file that a launch was sent, or has produced.", **file),
            },
            f"{base}/{{id}}/{{launch_id}}/result": {
                "parameters": [_ID, _LAUNCH],
                "get": _operation("result", "What became of each row, by its line.", responses=_results()),
            },
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "User `api`, password a token of this data sync. Some data syncs ask for none.",
                }
            },
            "schemas": _schemas(),
        },
    }


def _operation(id: str, summary: str, **more: Any) -> Document:
    return {"operationId": id, "summary": summary, **more}


def _described() -> Document:
    described = {"description": "OpenAPI 3.1.", "content": {JSON: {"schema": {"type": "object"}}}}
    return {"security": [], "responses": {"200": described} | _refusals("500", "503")}


def _refusals(*codes: str, meaning: str = "") -> Document:
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {code: {"description": meaning or _REFUSALS[code], "content": content} for code in codes}


def _answers(schema: str, example: Any) -> Document:
    """200 in both formats, and what is refused everywhere."""
    pointer = {"Status": "/latest-launch/id", "Launches": "/0/id", "Launch": "/id"}[schema]
    found = {"id": "$request.path.id", "launch_id": f"$response.body#{pointer}"}
    content = {
        JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example},
        EDN: {"schema": {"type": "string"}},
    }
    links = {name: {"operationId": name, "parameters": found} for name in ("download", "result")}
    return {"200": {"description": "As it is now.", "content": content, "links": links}} | _refusals(*_EVERYWHERE)


def _text(meaning: str) -> Document:
    return {
        "description": meaning,
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "File queued"}},
    }


def _file() -> Document:
    return {"description": "CSV in UTF-8.", "content": {CSV: {"schema": {"type": "string"}}}}


def _form() -> Document:
    file = {
        "type": "string",
        "contentMediaType": CSV,
        "minLength": 1,
        "description": f"CSV in UTF-8, with a header. At most {MOST} bytes unless the data sync says otherwise.",
    }
    schema = {"type": "object", "required": ["file"], "properties": {"file": file}}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _results() -> Document:
    rows = [
        {"line": 2, "key": "C1", "outcome": "delivered"},
        {"line": 3, "key": "C2", "outcome": "invalid", "number": 113, "reason": "no date", "field": "birth_date"},
    ]
    example = {"launch": 1_790_000_000_000, "rows": rows}
    content = {
        JSON: {"schema": {"$ref": "#/components/schemas/Result"}, "example": example},
        CSV: {"schema": {"type": "string"}, "example": ",".join(COLUMNS) + "\r\n2,C1,delivered,,,\r\n"},
    }
    return {"200": {"description": "As it is now.", "content": content}} | _refusals(*_EVERYWHERE)


def _schemas() -> Document:
    launch = {
        "id": _LAUNCH_ID,
        "status": {"enum": ["scheduled", "running", "finished", "cancelled"]},
        "scheduled-time": _INSTANT,
        "started-at": _INSTANT,
        "status-message": {"type": "string", "description": "What went wrong."},
    }
    status = {
        "name": {"type": "string"},
        "status": {"enum": ["enabled", "disabled"]},
        "latest-launch": {"$ref": "#/components/schemas/Launch"},
        "next-launch": _INSTANT,
    }
    row = {
        "line": {"type": "integer", "minimum": 1, "description": "The header is line 1. Left out where it is unknown."},
        "key": {"type": "string"},
        "outcome": {"enum": [outcome.value for outcome in Outcome]},
        "number": {"type": "integer", "description": "Of the kind of failure."},
        "reason": {"type": "string"},
        "field": {"type": "string"},
    }
    problem = {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    }
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}
    return {
        "Status": _object(status, "name", "status"),
        "Launch": _object(launch, "id", "status", "scheduled-time"),
        "Launches": {"type": "array", "maxItems": LATEST, "items": {"$ref": "#/components/schemas/Launch"}},
        "Row": _object(row, "key", "outcome"),
        "Result": _object({"launch": _LAUNCH_ID, "rows": rows}, "launch", "rows"),
        "Problem": _object(problem, *problem),
    }


def _object(properties: Document, *required: str) -> Document:
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}
