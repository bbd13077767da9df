"""Blobs in S3: `s3://bucket/prefix?region=…&endpoint=…`; needs tidings[aws]. Create-only by If-None-Match."""

from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tidings.errors import BlobsError, ServiceError, TidingsError
from tidings.world import World

try:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session
    from aiohttp import ClientError as HTTPError
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
except ModuleNotFoundError as error:
    raise ServiceError(
        f's3:// needs the package {error.name}, which is not here: pip install "tidings[aws]".'
    ) from error

TRIES = 5
"""Times that a request is sent until S3 has answered it, the pauses between growing."""

CONNECT_SECONDS, READ_SECONDS = 2.0, 5.0
"""Seconds that one try waits for a connection, and for an answer."""

CONNECTIONS = 50

OUTAGES = (ConnectionError, HTTPClientError, HTTPError, OSError, TimeoutError)
FAILURES = (ClientError, BotoCoreError, *OUTAGES)
"""What a request can raise; a part of a body that is cut off is told by aiohttp itself."""

FORM = "s3://BUCKET[/PREFIX][?region=REGION&endpoint=URL]"


def open_blobs(url: str, world: World) -> "S3Blobs":
    """Return the blobs of an `s3://` URL; raises ServiceError. Credentials are found where AWS's own tools look."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - {"region", "endpoint"})
    if unknown or not parts.netloc or "@" in parts.netloc:
        what = f"has the option {unknown[0]!r}, which is not known" if unknown else "names no bucket"
        raise ServiceError(f"The URL of blobs {what}. It has the form {FORM}.")
    return S3Blobs(parts.netloc, parts.path.strip("/"), options.get("region"), options.get("endpoint"))


class S3Blobs:
    """Implements tidings.blobs.Blobs. S3 checks a digest of what it gets, and what it gives is checked by it."""

    def __init__(self, bucket: str, prefix: str, region: str | None, endpoint: str | None) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._region = region
        self._endpoint = endpoint
        self._opened = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        """Connect; raises ServiceError where there is no such bucket or it may not be used."""
        config = AioConfig(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            # A server of one's own has no name for each bucket.
            s3={"addressing_style": "path" if self._endpoint else "auto"},
        )
        try:
            client = get_session().create_client(
                "s3", region_name=self._region, endpoint_url=self._endpoint, config=config
            )
            async with AsyncExitStack() as opening:
                self._client = await opening.enter_async_context(client)
                await self._client.head_bucket(Bucket=self._bucket)
                self._opened = opening.pop_all()
        except OUTAGES as error:
            raise self._failed("does not answer", error) from error
        except ClientError as error:
            raise self._refused(error) from error
        except (BotoCoreError, ValueError) as error:  # no region, no credentials, an endpoint that is no URL
            raise ServiceError(f"The bucket {self._bucket} cannot be opened: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._opened.aclose()

    async def create(self, key: str, data: bytes) -> bytes:
        """Write under a key unless something is there; return what is there now."""
        try:
            await self._client.put_object(
                Bucket=self._bucket, Key=self._prefix + key, Body=data, IfNoneMatch="*", ChecksumAlgorithm="SHA256"
            )
        except FAILURES as error:
            # 412: something is there, perhaps by a try of this very call whose answer got lost.
            if _status(error) != 412:
                raise self._failed(f"did not take {key}", error) from error
        else:
            return data
        there = await self.read(key)
        if there is None:
            raise BlobsError(
                f"{key} was removed from the bucket {self._bucket} while it was read: let nothing do that."
            )
        return there

    async def read(self, key: str) -> bytes | None:
        """Return what is under a key, None if nothing is."""
        try:
            found = await self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, ChecksumMode="ENABLED")
            async with found["Body"] as body:
                return bytes(await body.read())
        except FAILURES as error:
            if _code(error) == "NoSuchKey":
                return None
            raise self._failed(f"did not give {key}", error) from error

    def _failed(self, what: str, error: Exception) -> BlobsError:
        return BlobsError(f"The bucket {self._bucket} {what}: {error}")

    def _refused(self, error: ClientError) -> TidingsError:
        status = _status(error)
        if status >= 500 or status == 429:
            return self._failed("does not answer", error)
        do = {
            404: "there is no such bucket: make it",
            403: "allow s3:ListBucket on it, and s3:GetObject and s3:PutObject on what is in it",
            301: "it is in another region: say region=… in the URL",
        }.get(status, str(error))
        return ServiceError(f"The bucket {self._bucket} cannot be used ({status}): {do}.")


def _status(error: Exception) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"]) if isinstance(error, ClientError) else 0


def _code(error: Exception) -> str:
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""
