"""Every error as problem+json (RFC 9457): what is wrong, where, and what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from adexport.catalogue import NameTakenError, UnknownError
from adexport.errors import AdExportError, DesignError, FileMissingError
from adexport.export import NotNowError
from adexport.exporting import PreflightError
from adexport.feeds import FeedError
from adexport.queries import CursorError
from adexport.requests import LineBreakError, RequestError
from tidings import StrictJSONError, TidingsError

_LOG = logging.getLogger("adexport.http")
MEDIA_TYPE = "application/problem+json"
# The first class that fits decides; what is retryable and not listed is 503, all else 422.
_STATUS: dict[type[Exception], int] = {
    UnknownError: 404,
    FileMissingError: 404,
    NameTakenError: 409,
    NotNowError: 409,
    CursorError: 400,
    LineBreakError: 400,
}


class ProblemError(AdExportError):
    """An error of the HTTP layer itself, with its status and what the answer's headers add."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Keep the status (4xx or 5xx) beside the sentence."""
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})


def problem(
    status: int, detail: str, errors: list[dict[str, Any]] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer for one problem. `errors` name places: {"where", "message", …}."""
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    body["detail"] = detail
    if errors:
        body["errors"] = errors
    return Response(msgspec.json.encode(body), status, dict(headers or {}), MEDIA_TYPE)


def _places(error: Exception) -> list[dict[str, Any]]:
    """Where in the request the error is, as far as the error knows."""
    if isinstance(error, PreflightError):
        return [{"where": each.column or each.size, **msgspec.to_builtins(each)} for each in error.problems]
    if isinstance(error, RequestError):
        return [{"where": error.where, "message": str(error)}]
    if isinstance(error, DesignError | StrictJSONError):
        return [{"where": error.path, "message": str(error)}]
    if isinstance(error, FeedError) and error.line is not None:
        return [{"where": f"line {error.line}", "column": error.column, "message": str(error)}]
    return []


def _status(error: Exception) -> int:
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return status
    return 503 if getattr(error, "retryable", False) else 422


async def _known(_: Request, error: Exception) -> Response:
    status = _status(error)
    return problem(status, str(error), _places(error), {"Retry-After": "2"} if status == 503 else None)


async def _own(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem(error.status, str(error), headers=error.headers)


async def _malformed(_: Request, error: Exception) -> Response:
    return problem(400, str(error), _places(error))


async def _store(_: Request, error: Exception) -> Response:
    if not getattr(error, "retryable", False):
        raise error
    _LOG.warning("The store refused a request: %s", error)
    return problem(503, "The store cannot take this now. Try again shortly.", headers={"Retry-After": "2"})


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if detail == HTTPStatus(error.status_code).phrase:
        what = f"takes no {request.method}" if error.status_code == 405 else "is not part of this service"
        detail = f"{request.url.path[:200]} {what}. GET /openapi.json lists all there is."
    return problem(error.status_code, detail, headers=error.headers)


async def _parameters(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"where": ".".join(str(part) for part in each["loc"]), "message": str(each["msg"])} for each in error.errors()
    ]
    return problem(422, "; ".join(f"{each['where']}: {each['message']}" for each in errors)[:2000], errors)


def install(app: FastAPI) -> None:
    """Answer every error of `app` that can be expected as a problem, those of FastAPI and Starlette too."""
    app.add_exception_handler(AdExportError, _known)
    app.add_exception_handler(ProblemError, _own)
    app.add_exception_handler(TidingsError, _store)
    app.add_exception_handler(StrictJSONError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _parameters)
