"""Idempotency-Key: the same request sent again gets the same answer and starts nothing twice.

The key is optional. An answer is kept for seven days, written in the same transaction as what it answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import msgspec
from starlette.requests import Request

from adexport.arguments import microseconds
from adexport.entrypoints.problems import ProblemError
from tidings import Service, Transaction

MAX_KEY = 255
KEPT = timedelta(days=7)


class StoredAnswer(msgspec.Struct, frozen=True):
    """The first answer to a key: the id of what it made, and its body."""

    export_id: str
    body: bytes


class RacedError(Exception):
    """Another process stored an answer for this key in the meantime."""


def read_key(request: Request) -> str | None:
    """The key, from a quoted structured-field string or bare. Raises ProblemError 400 when it is malformed."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    key = values[0].strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if len(values) > 1 or not 1 <= len(key) <= MAX_KEY or not (key.isascii() and key.isprintable()):
        raise ProblemError(
            400, f"Idempotency-Key must be one value of 1 to {MAX_KEY} printable ASCII characters, quoted or bare."
        )
    return key


def fingerprint(request: Request, body: bytes) -> str:
    """What two requests must have in common to be the same: method, path and the bytes of the body."""
    head = f"{request.method} {request.url.path}\n".encode()
    return hashlib.sha256(head + body).hexdigest()


class IdempotencyKeys:
    """The keys seen, in the database; those in flight, in this process."""

    def __init__(self, service: Service) -> None:
        """Reads and writes through `service`."""
        self._service = service
        self._in_flight: set[str] = set()

    @contextmanager
    def claim(self, key: str | None) -> Iterator[None]:
        """Hold the key while its first request runs. Raises ProblemError 409 when it is held."""
        if key is None:
            yield
            return
        if key in self._in_flight:
            raise ProblemError(
                409, "A request with this Idempotency-Key is still running. Wait for it.", headers={"Retry-After": "1"}
            )
        self._in_flight.add(key)
        try:
            yield
        finally:
            self._in_flight.discard(key)

    async def stored(self, key: str | None, print_: str) -> StoredAnswer | None:
        """The first answer to this key, or None. Raises ProblemError 422 when it answered another request."""
        if key is None:
            return None
        row = await self._service.fetch_one(
            "SELECT fingerprint, export_id, body FROM adexport_idempotency WHERE key = $1", key
        )
        if row is None:
            return None
        if row["fingerprint"] != print_:
            raise ProblemError(422, "This Idempotency-Key was used with another body. Use a new key for a new request.")
        return StoredAnswer(row["export_id"], bytes(row["body"]))

    async def remember(self, tx: Transaction, key: str | None, print_: str, answer: StoredAnswer) -> None:
        """Store the answer in the transaction that does the work. Raises RacedError when another was faster."""
        if key is None:
            return
        now = microseconds(tx.now())
        await tx.execute(
            "DELETE FROM adexport_idempotency WHERE created_us < $1", now - KEPT // timedelta(microseconds=1)
        )
        written = await tx.execute(
            "INSERT INTO adexport_idempotency (key, fingerprint, export_id, body, created_us)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            key,
            print_,
            answer.export_id,
            answer.body,
            now,
        )
        if written == 0:
            raise RacedError
