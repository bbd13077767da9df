"""The view of events: whatever the data of one of them, all the others are shown."""

import json
import uuid
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from msgspec.structs import replace

from tidings import Event, Service
from tidings.backends.postgres import PostgresStore
from tidings.errors import ServiceError
from tidings.testing.conformance.samples import envelope

ODD = {
    "nul": b'{"note": "a \\u0000 here"}',
    "escaped": b'{"note": "a \\\\u0000 here"}',
    "number": b'{"note": 1e999999}',
    "surrogate": b'{"note": "\\ud83d"}',
    "text": b"no JSON",
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
}
"""Name -> data that jsonb refuses, or seems to."""


class Noted(Event, name="view.noted", key="note"):
    note: str


async def test_every_event_is_shown(postgres_url: str) -> None:
    service = Service("view", store=postgres_url)
    async with service.running(consumers=False):
        assert isinstance(service.store, PostgresStore)
        await service.publish(Noted(note="plain"))
        await service.store.publish([replace(envelope(name), data=data) for name, data in ODD.items()])
        rows = await service.fetch_all("SELECT id, data FROM tidings.events ORDER BY position")
        plain = await service.fetch_all("SELECT data ->> 'note' FROM tidings.events WHERE data ->> 'note' <> ''")
    shown = {row[0]: json.loads(row[1]) if row[1] is not None else None for row in rows[1:]}
    assert shown.pop("escaped") == {"note": "a \\u0000 here"}
    assert shown.pop("no text") is None
    assert shown == {name: ODD[name].decode() for name in shown}
    assert [row[0] for row in plain] == ["plain", "a \\u0000 here"]


async def test_a_database_that_cannot_hold_every_text_is_refused_before_anything_is_made(postgres_server: str) -> None:
    admin = await asyncpg.connect(postgres_server)
    name = f"tidings_test_{uuid.uuid4().hex[:12]}"
    await admin.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        parts = urlsplit(postgres_server)
        service = Service("latin", store=urlunsplit(parts._replace(path=f"/{name}")))
        with pytest.raises(ServiceError, match="LATIN1"):
            async with service.running(consumers=False):
                pass
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()
