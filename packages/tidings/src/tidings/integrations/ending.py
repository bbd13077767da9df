"""An executor's transaction is begun and ended by Tidings alone: its first words, and how another end of it is noticed.

A handler that commits by itself makes its effects last without the progress of its event: they would be repeated. The
libraries' own commit() is refused where they let us; SQL that says COMMIT is noticed by the transaction's id.
"""

from tidings.backends.postgres import PostgresStore
from tidings.backends.postgres.driver import Session
from tidings.errors import StatementError, StoreError, TransactionEndedError

_BEGIN = """
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
SET LOCAL idle_in_transaction_session_timeout = '30s'
"""
# Said first, whatever the engine or database begins: the fence of a subscription's progress looks at the present. Once
# a query was made, it is refused where the level is another. How long a handler may take is the hold limit's to say.
_NO_LIMIT = "; SET LOCAL transaction_timeout = 0"

_WHICH = "SELECT pg_current_xact_id()::text"
_STATUS = "SELECT pg_xact_status(CAST($1 AS text)::xid8)"


def not_yours() -> StatementError:
    """Return the error of a handler that ended its transaction."""
    return StatementError(
        "The handler ended its transaction (by COMMIT or ROLLBACK, or by going on after a failed flush). It belongs to "
        "Tidings, which commits it together with the event: write, flush() and return; raise to undo."
    )


class Watch:
    """Knows one transaction from every other; `ending` is set where Tidings itself begins to commit it."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._transaction: str | None = None
        self.ending = False

    async def begin(self, session: Session) -> None:
        """Say what is said first in a transaction, and note which it is."""
        await session.script(_BEGIN + _NO_LIMIT if self._store.greeting.limits_transactions else _BEGIN)
        self._transaction = (await session.rows(_WHICH))[0][0]

    async def check(self, session: Session) -> None:
        """Raise StatementError if another transaction is open on the session, or none."""
        if (await session.rows(_WHICH))[0][0] != self._transaction:
            raise not_yours()

    async def check_undone(self, error: BaseException) -> None:
        """Raise TransactionEndedError if a transaction that failed was committed all the same: by its handler."""
        if self._transaction is None or self.ending:
            return
        try:
            _, rows = await self._store.reading.query(_STATUS, (self._transaction,))
        except StoreError:
            return  # the error that led here says it
        if rows[0][0] == "committed":
            raise TransactionEndedError(
                "The handler committed its transaction (by COMMIT as SQL), which belongs to Tidings. What it wrote "
                "until then is there, but was not settled with the event, and would be written again: take the COMMIT "
                "out, then discard this event, or redrive it if its effects may be there twice."
            ) from error
