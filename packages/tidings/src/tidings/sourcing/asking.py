"""Questions to a service: who answers them, and how one is asked, of what is there now or after one's own write."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast

from tidings.errors import ProjectionError, ReferenceBehindError, ServiceError, StatementError, StoreError
from tidings.events import Envelope
from tidings.publishing.transaction import Told
from tidings.sourcing.command import Executed
from tidings.sourcing.commanding import Commanding
from tidings.sourcing.projection import PATIENCE, Projection
from tidings.sourcing.query import Query, QueryHandler, ReadOnly, Versioned
from tidings.statements import Statements

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V", bound=Versioned)


class Asking(Commanding):
    """The side that answers. `Service` is one."""

    _queries: dict[type[Query[Any]], QueryHandler]

    def query(
        self, query: type[Query[T]], *projections: Projection
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
        """Declare the function that answers a query; it is returned unchanged.

        Over projections it is `async def balance_of(query, read: ReadOnly)`, and reads their live tables in a read-only
        transaction. Without any it is `async def order_by_id(query)`, and asks elsewhere, such as another service's
        API. Raises ServiceError, HandlerError.
        """

        def declare(handler: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
            made = QueryHandler(str(getattr(handler, "__name__", handler)), handler, projections)
            if (known := self._queries.get(query)) is not None:
                raise ServiceError(f"Two handlers for {query.__name__}: {known.name} and {made.name}. A query has one.")
            made.check()
            self._queries[query] = made
            return handler

        return declare

    async def ask(
        self,
        query: Query[T],
        *,
        after: Executed | Envelope | int | None = None,
        patience: timedelta = PATIENCE,
    ) -> T:
        """Return the answer to a query.

        `after` is what the answer must know of: what `execute`, `publish` or `append` returned, or a position; it is
        waited for at most for `patience`. What the handler raises comes out as it is; it may be called again when a
        projection is swapped meanwhile. Raises RequestError, ServiceError, ProjectionLagError (retryable: not that
        far in time), ProjectionError.
        """
        handler = self._queries.get(type(query))
        if handler is None:
            known = ", ".join(sorted(cls.__name__ for cls in self._queries)) or "none"
            name = type(query).__name__
            raise ServiceError(
                f"Nobody answers {name}: declare @service.query({name}, …). The service {self.name} answers {known}."
            )
        query.to_json()
        if after is not None:
            await self._wait(handler, after, patience)
        answer: T = await (self._read(handler, query) if handler.projections else handler.call(query))
        return answer

    async def _wait(self, handler: QueryHandler, after: Executed | Envelope | int, patience: timedelta) -> None:
        if not handler.projections:
            raise ServiceError(f"{handler.name} asks elsewhere, where nobody can be waited for: leave out after=….")
        loop = asyncio.get_running_loop()
        until = loop.time() + patience.total_seconds()
        for projection in handler.projections:
            for one in after.envelopes if isinstance(after, Executed) else (after,):
                left = timedelta(seconds=max(0.0, until - loop.time()))
                await projection.wait_until_caught_up(one, patience=left)

    async def _read(self, handler: QueryHandler, query: Query[T]) -> T:
        while True:
            with Told(self.store) as told:
                async with self.store.querying() as statements:
                    live = await self._live(handler, statements)
                    tables = [(one.named, live[one.name]) for one in handler.projections]
                    read = ReadOnly(statements, tables, self.store)
                    try:
                        answer: T = await handler.call(query, read)
                        return answer
                    except StatementError as error:
                        told.foreign = error if error is not read.failure else None
                        if live == await self._live(handler, self.store.reading):
                            raise
                    except StoreError as error:
                        told.foreign = error if error is not read.failure else None
                        raise

    async def _live(self, handler: QueryHandler, statements: Statements) -> dict[str, int]:
        found: dict[str, int] = {}
        for one in handler.projections:
            version = await statements.live_version(one.name)
            if version is None:
                raise ProjectionError(f"No version of the projection {one.name} is live: start its service first.")
            found[one.name] = version
        return found

    async def look_up(
        self,
        query: Query[V] | Query[V | None],
        *,
        version: int,
        after: Executed | Envelope | int | None = None,
        patience: timedelta = PATIENCE,
    ) -> V:
        """Ask about what an event refers to, and return an answer that knows at least of that event.

        `version` is that of the entity in the event; compare it with the answer's: if that is higher, the entity has
        moved on. Raises ReferenceBehindError (retryable) where the answer is None or of an older version; lets
        ReferenceGoneError through, which the query's handler raises for what was removed.
        """
        found = await self.ask(cast("Query[V | None]", query), after=after, patience=patience)
        if found is None or found.version < version:
            known = "does not know it yet" if found is None else f"knows version {found.version}"
            raise ReferenceBehindError(
                f"{query} was asked for version {version}, and whoever answers {known}: it is tried again later."
            )
        return found
