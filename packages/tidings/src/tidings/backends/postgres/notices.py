"""Wake-ups between processes: NOTIFY, debounced; LISTEN on a connection of its own.

NOTIFY within the transaction leaves 0.39–0.46 of the commit rate, because commits then queue behind one lock. Debounced
and outside it leaves 0.99. So only a publish that none has come before for a while takes its notice along, which saves
it a round trip. A notice is a hint: polling is the truth.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

log = logging.getLogger("tidings")

CHANNEL = "tidings"
DEBOUNCE_SECONDS = 0.005
"""Notices of one process are at least so far apart."""

LONGEST_PAYLOAD = 7000
"""Bytes; Postgres takes 7999. A longer list of topics is sent as "everything"."""

EVERYTHING = "*"
RECONNECT_SECONDS = 0.5
"""Between two tries to listen again."""

PING_SECONDS, PONG_SECONDS = 15.0, 5.0
"""How often the listening connection is asked whether it lives, and how long it may take to answer: of a network that
swallows everything it would hear nothing."""


class Notices:
    """Sends and hears which topics have changed."""

    def __init__(
        self,
        connect: Callable[[], Awaitable["asyncpg.Connection[Any]"]],
        me: str,
        heard: Callable[[set[str] | None], None],
    ) -> None:
        self._connect = connect
        self._me = me
        self._heard = heard
        self._topics: set[str] = set()
        self._calm_at = 0.0
        self._sending: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._connection: asyncpg.Connection[Any] | None = None
        self._turn = asyncio.Lock()  # a connection says one thing at a time

    async def start(self) -> None:
        """Listen from now on; raises what connecting raises."""
        await self._connect_and_listen()
        self._listening = asyncio.create_task(self._keep_listening())

    async def stop(self) -> None:
        """Send what waits, and listen no more."""
        if self._sending is not None:
            await asyncio.wait([self._sending])
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        if self._connection is not None:
            with contextlib.suppress(Exception):  # asyncpg has ended it then
                await self._connection.close(timeout=PONG_SECONDS)

    def send(self, topics: set[str]) -> None:
        """Tell other processes, soon."""
        self._topics |= topics
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    def with_commit(self, topics: set[str]) -> tuple[str, str] | None:
        """Return what `pg_notify` may be told within a transaction; None if notices come too close, for then commits
        would queue behind one another: send it after the commit."""
        now = asyncio.get_running_loop().time()
        if now < self._calm_at or (self._sending is not None and not self._sending.done()):
            return None
        self._calm_at = now + DEBOUNCE_SECONDS
        return CHANNEL, self._payload(topics)

    def _payload(self, topics: set[str]) -> str:
        payload = "\n".join((self._me, *sorted(topics)))
        return payload if len(payload.encode()) <= LONGEST_PAYLOAD else f"{self._me}\n{EVERYTHING}"

    async def _send(self) -> None:
        while self._topics:
            topics, self._topics = self._topics, set()
            try:
                await self._say("SELECT pg_notify($1, $2)", CHANNEL, self._payload(topics))
            except Exception as error:
                log.debug("A notice could not be sent; others will see it when they poll: %s", error)
            await asyncio.sleep(DEBOUNCE_SECONDS)

    async def _say(self, sql: str, *args: str) -> None:
        # On the connection that listens: those of the pool may all be taken, by handlers for example.
        assert self._connection is not None  # it listens since the start
        async with self._turn:
            await self._connection.fetch(sql, *args, timeout=PONG_SECONDS)

    async def _connect_and_listen(self) -> None:
        closed = asyncio.Event()
        connection = await self._connect()
        try:
            connection.add_termination_listener(lambda _: closed.set())
            await connection.add_listener(CHANNEL, self._on_notice)
        except BaseException:
            connection.terminate()
            raise
        self._connection, self._closed = connection, closed

    async def _keep_listening(self) -> None:
        while True:
            await self._is_closed()
            try:
                await self._connect_and_listen()
                self._heard(None)  # what was said while nobody listened
            except Exception as error:
                log.debug("Listening ended and is begun again: %s", error)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _is_closed(self) -> None:
        """Wait until the listening connection is closed, or does not answer any more."""
        while not self._closed.is_set():
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._closed.wait()
            except TimeoutError:
                await self._ping()

    async def _ping(self) -> None:
        assert self._connection is not None  # it listens
        try:
            await self._say("SELECT 1")
        except Exception:
            self._connection.terminate()
            self._closed.set()

    def _on_notice(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        sender, *topics = str(payload).split("\n")
        if sender != self._me:
            self._heard(None if EVERYTHING in topics else set(topics))
