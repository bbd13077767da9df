"""Stands before AWS: writes down who called what, and lets a service be away."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

import aiohttp
from aiohttp import web

HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "expect", "date", "server"}
_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/[^/]+/(\w+)/aws4_request")


@dataclass(frozen=True)
class Call:
    """One right that was used: by whom, the action, and the resource as an ARN without region and account."""

    key: str
    action: str
    resource: str


class AwsProxy:
    """Use it as `async with AwsProxy(endpoint) as proxy`; clients talk to `proxy.url`.

    `calls` are the rights that were used, `unknown` the requests that could not be named. What is in `away` ("s3",
    "sqs") is not answered.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.url = ""
        self.away: set[str] = set()
        self.calls: set[Call] = set()
        self.unknown: set[str] = set()

    async def __aenter__(self) -> "AwsProxy":
        connector = aiohttp.TCPConnector(limit=0, force_close=True)  # none that the server has closed meanwhile
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        )
        application = web.Application(client_max_size=2**28)
        application.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.Response:
        key, service = _who(request)
        body = await request.read()
        if service in self.away:
            raise self._cut(request)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        target = f"{self._endpoint}{request.raw_path}"
        try:
            async with self._session.request(
                request.method, target, headers=headers, data=body, allow_redirects=False
            ) as answer:
                content = await answer.read()
        except aiohttp.ClientError:
            raise self._cut(request) from None
        rights = list(_rights(service, request, body, answer.status))
        self.calls |= {Call(key, action, resource) for action, resource in rights}
        if not rights:
            self.unknown.add(f"{service} {request.method} {request.raw_path[:200]}")
        told = {name: value for name, value in answer.headers.items() if name.lower() not in HOP - {"date"}}
        if request.method == "HEAD" and "Content-Length" in answer.headers:
            told["Content-Length"] = answer.headers["Content-Length"]
        return web.Response(status=answer.status, headers=told, body=content or None)

    @staticmethod
    def _cut(request: web.Request) -> Exception:
        """Break the connection; what is raised reaches nobody."""
        if request.transport is not None:
            request.transport.abort()
        return web.HTTPServiceUnavailable()


def _who(request: web.Request) -> tuple[str, str]:
    said = request.headers.get("Authorization", "")
    if signed := parse_qs(urlsplit(request.raw_path).query).get("X-Amz-Credential"):
        said = f"Credential={signed[0]}"
    found = _CREDENTIAL.search(said)
    return (found[1], found[2]) if found else ("", "")


def _rights(service: str, request: web.Request, body: bytes, status: int) -> Iterator[tuple[str, str]]:
    if service == "sqs":
        operation = request.headers["X-Amz-Target"].partition(".")[2].removesuffix("Batch")
        said = json.loads(body)
        name = str(said.get("QueueName") or said["QueueUrl"]).rpartition("/")[2]
        yield f"sqs:{operation}", name
    elif service == "s3":
        yield from _s3_rights(request, status)


_BUCKET = {
    ("GET", "versioning"): "s3:GetBucketVersioning",
    ("GET", "versions"): "s3:ListBucketVersions",
    ("HEAD", ""): "s3:ListBucket",
    ("POST", "delete"): "s3:DeleteObjectVersion",
}
_OBJECT = {
    ("GET", ""): "s3:GetObject",
    ("HEAD", ""): "s3:GetObject",
    ("PUT", ""): "s3:PutObject",
    ("POST", "uploads"): "s3:PutObject",
    ("PUT", "uploadId"): "s3:PutObject",
    ("POST", "uploadId"): "s3:PutObject",
    ("DELETE", "uploadId"): "s3:AbortMultipartUpload",
}


def _s3_rights(request: web.Request, status: int) -> Iterator[tuple[str, str]]:
    parts = urlsplit(request.raw_path)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    verb = next((name for name in ("versioning", "versions", "delete", "uploads", "uploadId") if name in query), "")
    action = (_OBJECT if key else _BUCKET).get((request.method, verb))
    if action is None:
        return
    yield action, f"{bucket}/{key}" if key or action == "s3:DeleteObjectVersion" else bucket
    yield from _implied(request.headers, action, bucket, status)


def _implied(headers: Mapping[str, str], action: str, bucket: str, status: int) -> Iterator[tuple[str, str]]:
    if source := headers.get("x-amz-copy-source"):
        yield "s3:GetObject", unquote(source).lstrip("/")
    if action == "s3:GetObject" and status == 404:
        yield "s3:ListBucket", bucket  # who may not list, is told 403
