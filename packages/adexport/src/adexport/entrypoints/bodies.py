"""Reads bodies and writes answers: limits before reading, strict JSON, one encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adexport.entrypoints.problems import ProblemError
from adexport.requests import convert
from tidings import parse_json

MAX_JSON = 1_048_576
JSON_TYPES = ("application/json",)
T = TypeVar("T")


async def read_body(request: Request, limit: int, media_types: tuple[str, ...]) -> bytes:
    """The body, refused before it is read where that is possible. Raises ProblemError 413 or 415."""
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if given not in media_types:
        raise ProblemError(415, f"The content type is {given[:80]!r}. Send {' or '.join(media_types)}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(415, "The body has a content encoding. Send it uncompressed.")
    too_large = ProblemError(413, f"The body is over {limit:,} bytes. Send less, or upload feeds and images apart.")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:18]) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


async def read_json(request: Request, kind: type[T]) -> tuple[T, bytes]:
    """The body as `kind`, and its bytes. Raises ProblemError, StrictJSONError (400) and RequestError (422)."""
    body = await read_body(request, MAX_JSON, JSON_TYPES)
    return convert(parse_json(body), kind), body


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as a JSON answer."""
    return Response(msgspec.json.encode(value), status, dict(headers or {}), "application/json")


def link(request: Request, path: str) -> str:
    """An address within this service, under the root path it is mounted at."""
    return str(request.scope.get("root_path", "")).rstrip("/") + path


def attachment(name: str) -> str:
    """A Content-Disposition that saves as `name` (RFC 6266), whatever it contains."""
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "._- ") else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def matches(request: Request, etag: str) -> bool:
    """True when If-None-Match names `etag`: the client has this answer already."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or etag in [each.strip().removeprefix("W/") for each in given.split(",")]
