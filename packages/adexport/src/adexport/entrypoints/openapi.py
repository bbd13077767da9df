"""Describes bodies and answers of msgspec types in FastAPI's OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

_TYPES: list[Any] = []
_REF = "#/components/schemas/{name}"
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


def _schema(kind: Any) -> dict[str, Any]:
    _TYPES.append(kind)
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return schema


def body_of(kind: Any) -> dict[str, Any]:
    """`openapi_extra` of a route that reads `kind` as JSON."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _schema(kind)}}}}


def bytes_body(*media_types: str) -> dict[str, Any]:
    """`openapi_extra` of a route that reads the file itself."""
    schema = {"type": "string", "format": "binary"}
    return {
        "requestBody": {"required": True, "content": {media_type: {"schema": schema} for media_type in media_types}}
    }


def gives(kind: Any, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that answers `kind` as JSON."""
    content = {"application/json": {"schema": _schema(kind)}}
    return {
        status: {"description": "OK" if status == 200 else "Accepted", "content": content}
        for status in statuses or (200,)
    }


def gives_bytes(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that answers a file."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"description": "OK", "content": {media_type: {"schema": schema} for media_type in media_types}}}


def install(app: FastAPI) -> None:
    """Add the described types to the document, and problem+json as the answer to every error."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        document = original()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if "Problem+json" not in schemas:
            _, components = msgspec.json.schema_components(_TYPES, ref_template=_REF)
            schemas.update(components)
            schemas["Problem+json"] = _PROBLEM
            _describe_errors(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_errors(document: dict[str, Any]) -> None:
    reference = {"schema": {"$ref": _REF.format(name="Problem+json")}}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "What is wrong, where, and what to do (RFC 9457).",
                "content": {"application/problem+json": reference},
            }
