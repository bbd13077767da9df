"""Commands on a service: who handles them, and how one is executed, once for each id."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, TypeVar, overload

from msgspec import Struct

from tidings.errors import ServiceError, StreamConflictError
from tidings.events import Envelope, derive_id
from tidings.points import COMMAND_POINTS, reach
from tidings.publishing.outbox import EMPTY
from tidings.publishing.producer import HANDLING, StableIds, check_id
from tidings.publishing.transaction import Transaction
from tidings.sourcing.command import Command, Executed
from tidings.sourcing.decider import Decider, Decision
from tidings.sourcing.obeying import CommandHandler
from tidings.sourcing.remembering import RETRIES, Remembering
from tidings.statements import Statements

K = TypeVar("K", bound=Command)
H = TypeVar("H", bound=Callable[..., Any])
_AUTHOR = "tidings.command"
"""Author of the ids of events that a command with an id makes."""


class Commanding(Remembering):
    """The side that changes things. `Service` is one."""

    _handlers: dict[type[Command], CommandHandler]

    @overload
    def handle(self, *commands: type[K], by: Decider[K, Any, Any], retries: int = RETRIES) -> None: ...

    @overload
    def handle(self, *commands: type[Command], by: None = None, retries: int = RETRIES) -> Callable[[H], H]: ...

    def handle(
        self, *commands: type[Command], by: Decider[Any, Any, Any] | None = None, retries: int = RETRIES
    ) -> Callable[[H], H] | None:
        """Say who obeys commands of some classes: a decider, or the function that this decorates, returned unchanged.

        The function's second parameter tells the shape: an Aggregate class for a plain function that calls its methods,
        `Transaction` for an async one that publishes, appends and writes. `retries`: so often it is all done again when
        somebody else has appended to the stream meanwhile. Raises ServiceError; HandlerError when the service starts.
        """
        if not commands or not all(issubclass(cls, Command) for cls in commands):
            raise ServiceError("handle() needs command classes: service.handle(Withdraw, by=account).")
        if retries < 0:
            raise ServiceError(f"handle(retries={retries}) would never execute: pass zero or more.")
        if by is not None:
            self._take(commands, CommandHandler(by.name, retries, decider=by))
            return None

        def declare(handler: H) -> H:
            self._take(commands, CommandHandler(str(getattr(handler, "__name__", handler)), retries, handler))
            return handler

        return declare

    def _take(self, commands: tuple[type[Command], ...], handler: CommandHandler) -> None:
        for cls in commands:
            if (known := self._handlers.get(cls)) is not None:
                raise ServiceError(
                    f"Two handlers for {cls.__name__}: {known.name} and {handler.name}. A command has one; "
                    "what several shall hear of is an event."
                )
        self._handlers.update(dict.fromkeys(commands, handler))

    def resolve_commands(self) -> None:
        """Read the hints of command handlers. For the library's own use; raises HandlerError."""
        for handler in dict.fromkeys(self._handlers.values()):
            commands = [cls for cls, known in self._handlers.items() if known is handler]
            self._handlers.update(dict.fromkeys(commands, handler.resolved(commands)))

    async def execute(
        self,
        command: Command,
        *,
        id: str | None = None,
        tx: Transaction | None = None,
        correlation: str | None = None,
        traceparent: str | None = None,
    ) -> Executed:
        """Let a command's handler obey it; return what it made happen once that is durable.

        With an `id` it is executed once: again with the same id it changes nothing, and returns the same events. After
        a cancellation or an error it may have been executed, so repeat it with its id. With `tx` it belongs to that
        transaction: what it did is undone alone if it raises. What the handler raises comes out as it is. Raises
        RequestError, ServiceError, StreamConflictError after the handler's retries, StreamArchivedError, StoreError.
        """
        handler = self._handler_of(command)
        command.to_json()
        if id is not None:
            check_id(id)
        one = _Asked(command, handler, handler.stream_of(command), id or self.world.fresh_id(), id is not None)
        if tx is not None:
            return (await self._within(one, tx, handler.retries))[0]
        if not one.once and handler.decider is not None and traceparent is None:
            return await self._decided(one, correlation)
        return await self._in_its_own(one, correlation, traceparent)

    def _handler_of(self, command: Command) -> CommandHandler:
        name, handler = type(command).__name__, self._handlers.get(type(command))
        if handler is None:
            known = ", ".join(sorted(cls.__name__ for cls in self._handlers)) or "none"
            raise ServiceError(
                f"Nobody handles {name}: declare service.handle({name}, by=…). The service {self.name} handles {known}."
            )
        return handler

    async def _in_its_own(self, one: "_Asked", correlation: str | None, traceparent: str | None) -> Executed:
        for attempt in range(one.handler.retries + 1):
            try:
                async with self.transaction(correlation=correlation, traceparent=traceparent) as own:
                    executed, decision = await self._within(one, own, 0)
                    reach(COMMAND_POINTS[1])
            except StreamConflictError:
                if attempt == one.handler.retries:
                    raise
                await self._pause(attempt)
                continue
            if decision is not None and one.handler.decider is not None:
                await self._keep(one.handler.decider, decision)
            return executed
        raise AssertionError("retries are not negative")

    async def _decided(self, one: "_Asked", correlation: str | None) -> Executed:
        """Decide without a transaction that is open meanwhile: the append shares its commit with others."""
        decider = one.handler.decider
        assert decider is not None  # else there is a function, which needs a transaction
        if correlation is None and HANDLING.get() is None:
            correlation = one.id
        decision = await self.decide(
            decider, one.handler.asked(one.command), stream=one.stream, retries=one.handler.retries,
            correlation=correlation, causation=one.id,
        )  # fmt: skip
        return self._executed(one, decision.version, decision.envelopes)

    async def _within(self, one: "_Asked", tx: Transaction, retries: int) -> tuple[Executed, Decision[Any, Any] | None]:
        incoming = Envelope(one.id, self.name, _AUTHOR, self.world.clock(), one.id, b"{}")
        async with tx.part(one.id, StableIds(incoming, _AUTHOR) if one.once else None) as part:
            if one.once and (before := await self._before(one, part)) is not None:
                return before, None
            reach(COMMAND_POINTS[0])
            handler = one.handler
            if handler.decider is not None:
                asked = handler.asked(one.command)
                decision = await self.decide(
                    handler.decider, asked, stream=one.stream, retries=handler.retries, tx=part
                )
                return self._executed(one, decision.version, decision.envelopes), decision
            assert handler.call is not None  # it has one of the two
            mark = part.mark()
            await handler.call(one.command, part)
            envelopes = part.published(mark)
            return self._executed(one, await self._version(one, part, envelopes), envelopes), None

    async def _before(self, one: "_Asked", part: Transaction) -> Executed | None:
        """Return what this id has done already; else note it, so that whoever comes with it waits, and finds that.

        What is admitted is the first event's id: so an event in the log tells too, when the note has long gone.
        """
        first = derive_id(self.name, one.id, _AUTHOR, 0)
        marker = Envelope(first, self.name, _AUTHOR, self.world.clock(), one.id, b"{}")
        async with part.speaking() as statements:
            if await statements.admit([marker], undated_at=self.world.now()):
                return None
            envelopes = await self._made_by(one.id, statements, part)
        if one.handler.decider is not None and any(envelope.stream != one.stream for envelope in envelopes):
            raise ServiceError(
                f"The id {one.id!r} was that of another command, which was not about {one.stream}, and now comes with "
                f"{type(one.command).__name__}: every request has an id of its own."
            )
        return self._executed(one, await self._version(one, part, envelopes), envelopes, repeated=True)

    async def _made_by(self, command_id: str, statements: Statements, part: Transaction) -> list[Envelope]:
        """Return the events that a command with an id has made, but for those that are scheduled still."""
        own = {envelope.id: envelope for envelope in part.published(EMPTY)}
        found: list[Envelope] = []
        for ordinal in count():
            event_id = derive_id(self.name, command_id, _AUTHOR, ordinal)
            said = [own[event_id]] if event_id in own else [one.envelope for one in await statements.find(event_id)]
            later = [] if said else await statements.scheduled(event_id)
            if not any(one.source == self.name for one in (*said, *(row.envelope for row in later))):
                break
            found += [one for one in said if one.source == self.name]
        return found

    async def _version(self, one: "_Asked", part: Transaction, envelopes: Sequence[Envelope]) -> int:
        """Return the version of a command's stream after its events; where it made none, as it stands."""
        if one.stream is None:
            return 0
        versions = [envelope.stream_version or 0 for envelope in envelopes if envelope.stream == one.stream]
        if versions:
            return max(versions)
        async with part.speaking() as statements:
            head = await statements.stream_head(one.stream)
        return head.version if head is not None else 0

    def _executed(
        self, one: "_Asked", version: int, envelopes: Sequence[Envelope], *, repeated: bool = False
    ) -> Executed:
        return Executed(one.id, one.stream, version, envelopes, self.registry, repeated=repeated)


class _Asked(Struct, frozen=True):
    """One call: the command, who obeys it, its stream, its id, and whether it may be executed only once."""

    command: Command
    handler: CommandHandler
    stream: str | None
    id: str
    once: bool
