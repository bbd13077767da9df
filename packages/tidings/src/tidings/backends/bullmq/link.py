"""One connection to Redis: commands go out in one piece, replies come back in order, errors are ours."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.asyncio import Connection, SSLConnection
from redis.exceptions import (
    AuthenticationError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from tidings.backends.bullmq.address import Address
from tidings.backends.bullmq.scripts import Script
from tidings.errors import TransportError

CONNECT_SECONDS = 10.0
"""So long a new connection may take."""

ANSWER_SECONDS = 20.0
"""So long the replies to one piece of commands may take: a network that swallows everything must end in another try."""

_FAILED = (RedisError, OSError, TimeoutError)


class DeniedError(TransportError):
    """Redis does not let us in, or not do this: it stays so until somebody changes the URL or the rights."""

    retryable = False


def command(*parts: str | bytes | int | float) -> bytes:
    """Return one command as Redis reads it."""
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub means tuples of any length
    return packed


class Link:
    """A connection that callers use in turn. It is made when first needed, and again after it broke.

    redis-py connects, authenticates and encrypts. Its clients and their time-outs are left out: a piece of commands has
    one time-out of its own, and a question that blocks in Redis has one that is longer than it blocks.
    """

    def __init__(self, address: Address, scripts: Sequence[Script], name: str = "") -> None:
        self._address = address
        self._loading = [command("SCRIPT", "LOAD", script.text) for script in scripts]
        self._name = name
        self._place = (address.host, address.port)
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def run(self, commands: Sequence[bytes], seconds: float = ANSWER_SECONDS) -> list[Any]:
        """Send commands together and return their replies; raises TransportError if Redis refuses any of them."""
        async with self._turn:
            try:
                async with asyncio.timeout(seconds):
                    return await self._run(commands)
            except _FAILED as error:
                await self._drop()
                # The next try starts from the URL: who answers there knows the way after a failover.
                self._place = (self._address.host, self._address.port)
                denied = isinstance(error, (AuthenticationError, NoPermissionError))
                raise (DeniedError if denied else TransportError)(self._explained(error)) from error
            except BaseException:
                await self._drop()  # replies that nobody waits for would be taken for the next ones
                raise

    async def close(self) -> None:
        """Disconnect, also from under a command that still waits."""
        await self._drop()

    async def _run(self, commands: Sequence[bytes]) -> list[Any]:
        reused = self._connection is not None
        try:
            return await self._replies(commands)
        except RedisConnectionError:
            if not reused:
                raise
            # It broke while nobody looked: Redis was started again, or closes idle connections. Commands that were
            # carried out after all may come twice: a job is added, completed and given back once all the same, and
            # one that was taken stalls and comes again.
            await self._drop()
            return await self._replies(commands)
        except MovedError as moved:
            # All keys of a transport are in one slot, so nothing was done here, and everything can be done there.
            await self._drop()
            self._place = (moved.host, moved.port)
            return await self._replies(commands)

    async def _replies(self, commands: Sequence[bytes]) -> list[Any]:
        connection = self._connection or await self._connected()
        await connection.send_packed_command(commands, check_health=False)
        replies: list[Any] = []
        failed: ResponseError | None = None
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                failed = failed or error
        if failed:
            raise failed
        return replies

    async def _connected(self) -> Connection:
        host, port = self._place
        connection = (SSLConnection if self._address.tls else Connection)(
            host=host, port=port, db=self._address.db, username=self._address.username,
            password=self._address.password, socket_timeout=None, socket_connect_timeout=CONNECT_SECONDS,
            client_name=self._name or None, protocol=2,
        )  # fmt: skip
        await connection.connect()  # type: ignore[no-untyped-call]
        self._connection = connection
        if self._loading:
            await self._replies([command("PING")])  # who may not come in is told so here: long commands are cut off
            await self._replies(self._loading)
        return connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*_FAILED):
                await connection.disconnect(nowait=True)

    def _explained(self, error: BaseException) -> str:
        host, port = self._place
        text = str(error).rstrip(".") or "it did not answer in time"
        if "same slot" in text:
            return (
                f"Redis at {host}:{port} is a cluster, where the keys of a queue must lie in one slot: write the "
                "prefix in braces, as in prefix={bull}, in every program that uses the queue."
            )
        if isinstance(error, OutOfMemoryError):
            return f"Redis at {host}:{port} is out of memory ({text}): raise maxmemory, or remove finished jobs."
        if isinstance(error, (AuthenticationError, NoPermissionError)):
            return f"Redis at {host}:{port} refused: {text}. Check the user and password in the transport's URL."
        return f"Redis at {host}:{port} failed: {text}. It is tried again; check that it runs, and the transport's URL."
