"""Calls to one bucket: how long they may take, how many at once, and what their failures mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from adexport.adapters.s3_address import Bucket
from adexport.errors import StorageAwayError, StorageError

try:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session
    from aiohttp import ClientError as HTTPError
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
except ModuleNotFoundError as error:
    raise StorageError(
        f'Files in S3 need the package {error.name}, which is not here. Install it with pip install "adexport[cloud]".'
    ) from error

_AT_ONCE = 16
# A place that does not answer must not keep a request for minutes, as botocore's own limits would.
_CONNECT_SECONDS, _READ_SECONDS, _TRIES = 2, 15, 2
_SERVERS_FAULT = 500
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_AWAY = (ConnectionError, HTTPClientError, HTTPError, OSError)
_TAKEN = {"412", "PreconditionFailed", "ConditionalRequestConflict"}


class AbsentError(StorageError):
    """There is no such object."""


class TakenError(StorageError):
    """There is an object under this key already, or another writer is at it."""


class S3Client:
    """The calls that one part of a bucket needs, a number of them at a time. Every method raises StorageError."""

    def __init__(self, bucket: Bucket) -> None:
        """Connects to nothing yet."""
        self.bucket = bucket
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._opened = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        """Make the client. Who we are, botocore finds by itself: in the environment, a profile, or a role."""
        config = AioConfig(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": _TRIES},
            signature_version="s3v4",
            max_pool_connections=_AT_ONCE,
            # A server of one's own has no name for each bucket.
            s3={"addressing_style": "path" if self.bucket.endpoint else "auto"},
        )
        creating = get_session().create_client(
            "s3", endpoint_url=self.bucket.endpoint, region_name=self.bucket.region, config=config
        )
        try:
            self._client = await self._opened.enter_async_context(creating)
        except (BotoCoreError, ValueError) as error:
            raise self._trouble("cannot be used", error) from error

    async def close(self) -> None:
        """Close its connections."""
        await self._opened.aclose()

    async def call(self, operation: str, path: str | None = None, **parameters: Any) -> Any:
        """The answer of one operation on a path of the bucket. Raises AbsentError and TakenError, too."""
        async with self._turns:
            return await self._call(operation, path, parameters)

    async def read(self, path: str) -> bytes:
        """The bytes of an object, checked by its own checksum. Raises AbsentError."""
        async with self._turns:
            answer = await self._call("get_object", path, {"ChecksumMode": "ENABLED"})
            try:
                async with answer["Body"] as body:
                    return bytes(await body.read())
            except (BotoCoreError, HTTPError, OSError) as error:
                raise self._trouble("broke off", error) from error

    async def pages(self, operation: str, prefix: str) -> AsyncIterator[dict[str, Any]]:
        """The pages of a listing of the paths that begin so."""
        paginator = self._client.get_paginator(operation)
        try:
            async for page in paginator.paginate(Bucket=self.bucket.name, Prefix=self.bucket.key(prefix)):
                yield page
        except (BotoCoreError, ClientError, HTTPError, OSError) as error:
            raise self._trouble("could not be listed", error) from error

    async def presigned(self, path: str, seconds: int, **answer: str) -> str:
        """A link to get an object by, for so many seconds."""
        where = {"Bucket": self.bucket.name, "Key": self.bucket.key(path), **answer}
        try:
            return str(await self._client.generate_presigned_url("get_object", Params=where, ExpiresIn=seconds))
        except BotoCoreError as error:
            raise self._trouble("cannot sign links", error) from error

    async def _call(self, operation: str, path: str | None, parameters: dict[str, Any]) -> Any:
        where = {"Bucket": self.bucket.name} | ({} if path is None else {"Key": self.bucket.key(path)})
        try:
            return await getattr(self._client, operation)(**where, **parameters)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _ABSENT:
                raise AbsentError(f"{self.bucket} holds no {path}.") from error
            if code in _TAKEN:
                raise TakenError(f"{self.bucket} holds {path} already.") from error
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= _SERVERS_FAULT:
                raise self._trouble("does not answer", error, StorageAwayError) from error
            raise self._trouble("refused a call", error) from error
        except _AWAY as error:
            raise self._trouble("cannot be reached", error, StorageAwayError) from error
        except BotoCoreError as error:
            raise self._trouble("cannot be used", error) from error

    def _trouble(self, what: str, error: BaseException, kind: type[StorageError] = StorageError) -> StorageError:
        return kind(
            f"{self.bucket} {what}: {error}. See that the bucket is there, that it can be reached, and that the role or"
            " the credentials may use it (deploy/template.yaml lists what is needed)."
        )
