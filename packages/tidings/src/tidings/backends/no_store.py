"""No store: `none://`. For services whose handlers only run where there is none; everything asked of it is refused."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar, cast

from tidings.errors import ServiceError, StatementError
from tidings.statements import Statements
from tidings.store import Store
from tidings.world import World

T = TypeVar("T")


def open_store(url: str, world: World) -> Store:
    """Return what stands where a store is missing; raises ServiceError for a URL that says more than that."""
    if url != "none://":
        raise ServiceError(f"{url!r} says more than that there is no store: write none://.")
    return cast("Store", NoStore())


class NoStore:
    """Transactions that hold nothing, and in which all SQL is refused."""

    lanes = 1
    host = ""

    async def open(self, *, migrate: bool, read_only: bool = False) -> NoReturn:
        """Refuse; raises ServiceError."""
        raise ServiceError(
            'This service has no store (store="none://"): it runs as an AWS Lambda function, see '
            "tidings.integrations.aws_lambda. To run it, publish from it or look into it, name a store."
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Statements]:
        """Give statements that refuse."""
        yield self.reading

    async def run(self, unit: Callable[[Statements], Awaitable[T]]) -> T:
        """Run a unit, which can only do nothing."""
        return await unit(self.reading)

    @property
    def reading(self) -> Statements:
        """Return statements that refuse."""
        return cast("Statements", _NoStatements())

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(name) if name.startswith("_") else _refused(name)


class _NoStatements:
    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def refuse(*_: Any, **__: Any) -> NoReturn:
            raise _refused(name)

        return refuse


def _refused(what: str) -> StatementError:
    return StatementError(
        f"There is no store here ({what}): publish what happened, and let a subscription of a service with a store "
        "write it down or read it."
    )
