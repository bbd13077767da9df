"""Query: a question with a typed answer; and what its handler reads the answer from."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from tidings.errors import HandlerError, ServiceError, StoreError
from tidings.events import Request
from tidings.publishing.transaction import Queries
from tidings.sourcing.projection import Projection
from tidings.sourcing.tables import Tables, write_over
from tidings.statements import Statements, Value

T = TypeVar("T")


class Query(Request, Generic[T], frozen=True):
    """A question, which changes nothing. Subclass it with the type of its answer, and typed fields::

    class BalanceOf(Query[int]):
        account: str
    """


class Versioned(Protocol):
    """An answer about one entity: how many events of it the answer knows of."""

    @property
    def version(self) -> int:
        """Counts from 1."""


class ReadOnly(Queries):
    """The live tables of projections, as they are at one moment. SQL names them in braces: `SELECT … FROM {balances}`.

    What would write is refused with StatementError.
    """

    __slots__ = ("_of", "_statements", "_store", "failure")

    def __init__(self, statements: Statements, of: Sequence[tuple[Tables, int]], store: object) -> None:
        self._statements = statements
        self._of = of
        self._store = store
        self.failure: StoreError | None = None

    async def _query(self, sql: str, args: tuple[Value, ...]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        try:
            return await self._statements.query(write_over(sql, self._of), args)
        except StoreError as error:
            error.store = self._store
            self.failure = error
            raise


class QueryHandler(Struct, frozen=True):
    """Who answers a query: a function over projections of this service, or one that asks elsewhere."""

    name: str
    call: Callable[..., Awaitable[Any]]
    projections: tuple[Projection, ...]

    def check(self) -> None:
        """Raise HandlerError or ServiceError for a declaration that cannot work."""
        wanted = 2 if self.projections else 1
        if not inspect.iscoroutinefunction(self.call) or len(inspect.signature(self.call).parameters) != wanted:
            raise HandlerError(
                f"Query handler {self.name}: write `async def {self.name}(query, read: ReadOnly)` where it reads "
                "projections, which are named (`@service.query(BalanceOf, balances)`); without `read` where it asks "
                "somebody else."
            )
        names = [name for one in self.projections for name in one.named.names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ServiceError(
                f"Query handler {self.name} reads two projections that both have a table {{{twice[0]}}}: name one "
                "version of a projection, whichever; the live one is read."
            )
