"""A transport as somebody else might add one, and no more than an example: queues in an SQLite file of one machine.

`sqlite-queue:///FILE?out=NAME&in=NAME&lease=SECONDS`. In order by key, with leases and delays.
"""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlsplit

from tidings.errors import TransportError
from tidings.events import Envelope, envelope_to_json
from tidings.transport import FOLLOWS, Capabilities, Delivery, Refusal
from tidings.world import World

SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
  number INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT, held_by TEXT, body BLOB,
  hidden_until REAL DEFAULT 0, receipt TEXT DEFAULT ''
);
CREATE INDEX IF NOT EXISTS message_queue ON message (queue, number);
"""
LOOK_SECONDS = 0.02


def open_transport(url: str, world: World) -> "SqliteQueues":
    parts = urlsplit(url)
    return SqliteQueues(parts.path, world, **dict(parse_qsl(parts.query)))


class SqliteQueues:
    """Implements tidings.transport.Transport."""

    dead = None

    def __init__(self, file: str, world: World, **options: str) -> None:
        self._file, self._world = file, world
        self._out, self._in = options["out"], options["in"]
        self._lease = float(options.get("lease", 30))
        self.capabilities = Capabilities(
            ordered_by_key=True, max_bytes=262_144, max_batch=50, lease_seconds=self._lease, max_delay=3600.0
        )
        self._unsettled: set[str] = set()

    async def open(self) -> None:
        self._database = sqlite3.connect(self._file, isolation_level=None, timeout=10)
        self._database.executescript(f"PRAGMA journal_mode=WAL; {SCHEMA}")

    async def close(self) -> None:
        self._show(self._unsettled, 0.0)
        self._unsettled = set()

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        refused, rows = [], []
        closed: set[str | None] = set()
        for envelope in envelopes:
            body = envelope_to_json(envelope)
            key = None if envelope.key is None else json.dumps([envelope.source, envelope.key])
            if key is not None and key in closed:
                refused.append(Refusal(envelope.id, FOLLOWS, True))
            elif len(body) > self.capabilities.max_bytes:
                refused.append(Refusal(envelope.id, f"{len(body)} bytes, more than a queue takes", False))
                closed.add(key)
            else:
                rows.append((self._out, key, body))
        self._write("INSERT INTO message (queue, held_by, body) VALUES (?, ?, ?)", rows)
        return refused

    async def receive(self, limit: int) -> list[Delivery]:
        while not (taken := self._take(limit)):  # noqa: ASYNC110 - another process sends
            await asyncio.sleep(LOOK_SECONDS)
        self._unsettled.update(delivery.receipt for delivery in taken)
        return taken

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        receipts = [delivery.receipt for delivery in deliveries]
        self._unsettled.difference_update(receipts)
        self._write("DELETE FROM message WHERE receipt = ?", [(receipt,) for receipt in receipts])

    async def give_back(self, deliveries: Sequence[Delivery], delay: float = 0.0) -> None:
        receipts = {delivery.receipt for delivery in deliveries}
        self._unsettled -= receipts
        self._show(receipts, self._now() + min(delay, self.capabilities.max_delay))

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        until = self._now() + self._lease
        rows = [(until, delivery.receipt) for delivery in deliveries]
        self._write("UPDATE message SET hidden_until = ? WHERE receipt = ?", rows)

    def _take(self, limit: int) -> list[Delivery]:
        """Take what can be seen, in one transaction: nothing is awaited, so nobody can be cancelled with it."""
        now, taken, kept_back = self._now(), [], set()
        self._write("BEGIN IMMEDIATE", [()])
        sql = "SELECT number, held_by, body, hidden_until FROM message WHERE queue = ? ORDER BY number"
        for number, key, body, hidden_until in self._database.execute(sql, (self._in,)).fetchall():
            if key is not None and (hidden_until > now or key in kept_back):
                kept_back.add(key)
            elif hidden_until <= now and len(taken) < limit:
                receipt = self._world.fresh_id()
                update = "UPDATE message SET hidden_until = ?, receipt = ? WHERE number = ?"
                self._database.execute(update, (now + self._lease, receipt, number))
                taken.append(Delivery(receipt, body))
        self._write("COMMIT", [()])
        return taken

    def _show(self, receipts: set[str], when: float) -> None:
        rows = [(when, receipt) for receipt in receipts]
        self._write("UPDATE message SET hidden_until = ?, receipt = '' WHERE receipt = ?", rows)

    def _write(self, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            if sql.startswith(("BEGIN", "COMMIT")):
                self._database.execute(sql)
            elif rows:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(sql, rows)
                self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise TransportError(f"The queues in {self._file} failed: {error}. Is the disk full?") from error

    def _now(self) -> float:
        return self._world.now() / 1e6
