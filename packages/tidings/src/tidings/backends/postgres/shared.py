"""What shares a commit on Postgres: publishes in one insert, appends to streams in one call."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from tidings.backends.postgres.grouping import Groups
from tidings.backends.postgres.statements import PostgresStatements
from tidings.backends.postgres.statements.log import FEW
from tidings.errors import StoreBusyError
from tidings.events import Envelope
from tidings.points import reach
from tidings.rows import Append
from tidings.store import LOG_CHANGED


class Notify(Protocol):
    """Tells listeners of a commit."""

    def __call__(self, topics: set[str], *, told: bool = False) -> None:
        """Tell what it has touched; `told`: other processes know of it already."""


class SharedCommits:
    """Each group is a single statement, which is a transaction: one round trip.

    `speaking` borrows a connection. `notice` says what a commit may tell other processes by itself, None if nothing;
    `notify` tells what it has touched, and whether they know.
    """

    def __init__(
        self,
        speaking: Callable[[], AbstractAsyncContextManager[PostgresStatements]],
        notice: Callable[[set[str]], tuple[str, str] | None],
        notify: Notify,
    ) -> None:
        self._speaking = speaking
        self._notice = notice
        self._notify = notify
        self._publishes: Groups[Sequence[Envelope], None] = Groups(self._insert)
        self._appends: Groups[Append, int | None] = Groups(
            self._append, place=lambda append: append.stream, alone=StoreBusyError
        )

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Write events to the log with the next group."""
        await self._publishes.submit(envelopes)

    async def append(self, append: Append) -> int | None:
        """Append to a stream with the next group; return the version, None of a conflict.

        Raises StoreBusyError if another transaction has the stream: nobody else of the group waits for it.
        """
        return await self._appends.submit(append)

    async def drain(self) -> None:
        """Wait until what was submitted is committed."""
        await self._publishes.drain()
        await self._appends.drain()

    async def _insert(self, group: list[Sequence[Envelope]]) -> list[None]:
        published = [envelope for envelopes in group for envelope in envelopes]
        async with self._speaking() as statements:
            few = len(published) <= FEW
            notice = self._notice({LOG_CHANGED, *(envelope.type for envelope in published)}) if few else None
            reach("publish.before_commit")
            await statements.append(published, notice)
        reach("publish.after_commit")
        self._notify(statements.touched, told=notice is not None)
        return [None] * len(group)

    async def _append(self, group: list[Append]) -> list[int | None]:
        async with self._speaking() as statements:
            reach("publish.before_commit")
            heads = await statements.append_to_streams(group)
        reach("publish.after_commit")
        self._notify(statements.touched)
        return heads
