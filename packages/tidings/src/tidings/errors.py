"""Every error of the library, its tree, and whether a retry can help.

TidingsError
├── EventDefinitionError          an event class or upcaster is declared wrongly
├── EventEncodeError              an instance does not fit its own class
├── RequestError                  a command or a query does not fit its own class
├── EnvelopeError                 an envelope breaks the rules or bounds of CloudEvents
├── StrictJSONError               outside JSON is refused; names the place
├── EventDecodeError              the bytes do not fit the class: dead letter
├── ParkedEventError              not readable by this release: parked until one can
│   ├── UnknownEventTypeError
│   ├── UnknownEventVersionError
│   ├── NoUpcasterError
│   └── SagaNotReadableError      this release cannot go on with a saga that another one has begun
├── ServiceError                  a service, subscription or handler is declared or used wrongly
│   ├── SagaDefinitionError       a saga is declared wrongly, or its state cannot be saved or read
│   ├── HandlerError              its parameters do not say which shape it has
│   └── SubscriptionVanishedError a name the store knows is gone from the code
├── StoreError                    the store refused or failed
│   ├── StatementError            SQL that cannot run, or that would leave the transaction
│   │   └── TransactionEndedError a handler has committed the transaction that settles its event
│   ├── ConstraintError           a constraint of a table refused a row
│   ├── StoreVersionError         the store needs migrations, or a newer library
│   ├── StoreInUseError           this SQLite library must not share the file
│   ├── StoreBusyError            (retryable) somebody else writes
│   ├── StoreFullError            (retryable) the disk is full
│   └── StoreUnavailableError     (retryable) the store cannot be reached or used
├── TransactionError
│   ├── TransactionClosedError    used after its end
│   └── TransactionHeldTooLongError  (retryable) open for too long, rolled back
├── StreamError                   a stream cannot be read or appended to
│   ├── StreamConflictError       (retryable) it is at another version than expected: decide again
│   └── StreamArchivedError       it is archived
├── LeaseLostError                (retryable) another worker has taken over: nothing was written
├── ProjectionError               a projection cannot tell, or not handle, what was asked of it
│   └── ProjectionLagError        (retryable) it is not that far yet
├── ReferenceGoneError            what an event refers to was removed: there is nothing to read any more
├── ReferenceBehindError          (retryable) who was asked does not know yet what an event refers to
├── OperationError                an operator asked for what cannot be done
├── DeliveryFailedError           (retryable) a handler raised what is no Exception
├── DeliveryTimeoutError          (retryable) a handler went over its time limit
├── TransportError                (retryable) a broker could not be reached, or refused
├── BlobsError                    (retryable) the place of large bodies and outcomes could not be reached
└── HarnessTimeoutError           (tests) what a publish caused did not end in time

A message says what failed, why, and what to do.
"""

from typing import ClassVar


class TidingsError(Exception):
    """Root of the library's errors.

    `retryable` tells whether the same call, unchanged, may succeed later.
    """

    retryable: ClassVar[bool] = False


class EventDefinitionError(TidingsError):
    """An event class, or an upcaster, is declared in a way that cannot work."""


class EventEncodeError(TidingsError):
    """An event instance holds values that its own class could not read back."""


class RequestError(TidingsError):
    """A command or a query holds, or is sent with, what its own class does not take; the message names the field."""


class EnvelopeError(TidingsError):
    """An envelope lacks an attribute, or one is out of bounds."""


class StrictJSONError(TidingsError):
    """JSON from outside is malformed, ambiguous or out of bounds.

    Attributes: `problem` (what is wrong), `advice` (what to do), `path` (JSON path, `$` is the document),
    `line` and `column` (from 1, in characters).
    """

    def __init__(self, problem: str, advice: str, path: str = "$", line: int = 1, column: int = 1) -> None:
        super().__init__(problem, advice, path, line, column)
        self.problem = problem
        self.advice = advice
        self.path = path
        self.line = line
        self.column = column

    def __str__(self) -> str:
        """Return the one-line message with the place."""
        return f"JSON refused: {self.problem} at {self.path} (line {self.line}, column {self.column}); {self.advice}"


class EventDecodeError(TidingsError):
    """The bytes of an event do not fit its class; the message names the field. The delivery is dead."""


class ParkedEventError(TidingsError):
    """This release cannot read the event, a later one may: it is parked and comes back after a deploy."""


class UnknownEventTypeError(ParkedEventError):
    """No class with this event's type is registered."""


class UnknownEventVersionError(ParkedEventError):
    """The event has a major version that this release does not know."""


class NoUpcasterError(ParkedEventError):
    """The chain of upcasters from the event's major version to the class has a gap."""


class SagaNotReadableError(ParkedEventError):
    """A saga stands at a step, or has a state, that this release does not have; its event waits for one that has."""


class ServiceError(TidingsError):
    """A service, a subscription or a handler is declared or used in a way that cannot work."""


class SagaDefinitionError(ServiceError):
    """A saga is declared in a way that cannot work, or its state cannot be saved or read."""


class HandlerError(ServiceError):
    """The parameters of a handler do not say what it handles, or which shape it has."""


class SubscriptionVanishedError(ServiceError):
    """The store knows a subscription that the code no longer declares: its pending events would be forgotten."""


class StoreError(TidingsError):
    """The store refused or failed.

    `store` is the store through which it was told, where that is known: a handler may use several.
    """

    store: object = None


class StatementError(StoreError):
    """SQL that cannot run, or that would end the transaction it runs in."""


class TransactionEndedError(StatementError):
    """A handler has committed its executor's transaction: what it wrote is there, and not settled. Never retried."""


class ConstraintError(StoreError):
    """A constraint (unique, not null, check, foreign key) refused a row."""


class StoreVersionError(StoreError):
    """The tables of the store are older or newer than this library needs."""


class StoreInUseError(StoreError):
    """The file is written by another process, or through another SQLite library, and must not be shared."""


class StoreBusyError(StoreError):
    """Somebody else writes to the store."""

    retryable = True


class StoreFullError(StoreError):
    """The disk of the store is full."""

    retryable = True


class StoreUnavailableError(StoreError):
    """The store cannot be reached, read or written."""

    retryable = True


class TransactionError(TidingsError):
    """A transaction was used wrongly."""


class TransactionClosedError(TransactionError):
    """A transaction was used after its end."""


class TransactionHeldTooLongError(TransactionError):
    """A transaction stayed open longer than the store allows, and was rolled back."""

    retryable = True


class StreamError(TidingsError):
    """A stream cannot be read or appended to."""


class StreamConflictError(StreamError):
    """A stream is at another version than the append expected; nothing was written. Load it and decide again.

    Attributes: `stream`, `expected` (0: it should not be there yet), `actual` (0: it is not there).
    """

    retryable = True

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(stream, expected, actual)
        self.stream = stream
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        """Return the one-line message."""
        expected = f"to be at version {self.expected}" if self.expected else "not to exist yet"
        actual = f"is at version {self.actual}" if self.actual else "does not exist"
        return (
            f"Stream {self.stream!r} was expected {expected}, but it {actual}: somebody else has appended meanwhile, "
            "or the number is wrong. Nothing was written; load the stream and decide again."
        )


class StreamArchivedError(StreamError):
    """A stream is archived: it takes no events, and is left out of reads that do not ask for it."""


class LeaseLostError(TidingsError):
    """Another worker has taken over the lane or the work: nothing of this attempt was written."""

    retryable = True


class ProjectionError(TidingsError):
    """A projection has no live version, cannot handle an event, or a version cannot become live."""


class ProjectionLagError(ProjectionError):
    """A projection has not handled in time what was waited for."""

    retryable: ClassVar[bool] = True


class ReferenceGoneError(TidingsError):
    """What an event refers to was removed meanwhile. Whoever answers the query raises it; the consumer decides."""


class ReferenceBehindError(TidingsError):
    """Whoever answers the query does not know yet what an event refers to, or only an older version of it."""

    retryable: ClassVar[bool] = True


class OperationError(TidingsError):
    """An operator asked for what cannot be done: a name that is not there, a state that does not fit."""


class DeliveryFailedError(TidingsError):
    """A handler raised something that is no Exception, such as a CancelledError of a task of its own."""

    retryable = True


class DeliveryTimeoutError(TidingsError):
    """A handler went over its time limit."""

    retryable = True


class TransportError(TidingsError):
    """A broker could not be reached, or refused a message."""

    retryable = True


class BlobsError(TidingsError):
    """The place of large bodies and outcomes could not be reached, or refused."""

    retryable = True


class HarnessTimeoutError(TidingsError):
    """In a test: the work that a publish caused did not end in time; the message names what is unfinished and where."""
