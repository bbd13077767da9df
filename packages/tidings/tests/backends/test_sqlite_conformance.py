"""The suite of a store, over both SQLite libraries; and what only SQLite can be put through: a full disk."""

# ruff: noqa: PT012 - what raises here is the end of a block, not one call

from pathlib import Path

import pytest

from tidings.backends.sqlite import SqliteStore, open_store
from tidings.errors import ConstraintError, StoreFullError
from tidings.testing.conformance import StoreSuite
from tidings.testing.conformance.samples import envelope, still_world

BODY = b'{"text":"' + b"x" * 20_000 + b'"}'


class TestStandardLibrary(StoreSuite):
    def make(self, folder: Path) -> SqliteStore:
        return open_store(f"sqlite:///{folder}/suite.db", still_world())


class TestApsw(StoreSuite):
    def make(self, folder: Path) -> SqliteStore:
        return open_store(f"sqlite+apsw:///{folder}/suite.db", still_world())


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+apsw"])
async def test_one_id_of_one_source_is_one_event(tmp_path: Path, scheme: str) -> None:
    store = open_store(f"{scheme}:///{tmp_path}/one.db", still_world())
    await store.open(migrate=True)
    await store.publish([envelope("e")])
    with pytest.raises(ConstraintError):
        await store.publish([envelope("e", data=b"{}")])
    assert len(await store.reading.find("e")) == 1
    await store.close()


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+apsw"])
async def test_a_full_disk_loses_nothing_and_is_told(tmp_path: Path, scheme: str) -> None:
    store = open_store(f"{scheme}:///{tmp_path}/full.db", still_world())
    await store.open(migrate=True)
    assert store._writing is not None
    await store.publish([envelope("before")])
    pages = store._writing.rows("PRAGMA page_count")[0][0]
    store._writing.rows(f"PRAGMA max_page_count = {pages + 20}")
    acknowledged = ["before"]
    with pytest.raises(StoreFullError) as caught:
        for number in range(100):
            await store.publish([envelope(f"e{number}", data=BODY)])
            acknowledged.append(f"e{number}")
    assert caught.value.retryable
    assert [record.envelope.id for record in await store.reading.recent(0, 999)] == acknowledged
    with pytest.raises(StoreFullError):
        async with store.transaction() as statements:
            await statements.append([envelope("in-block", data=BODY)])
    store._writing.rows("PRAGMA max_page_count = 1000000")
    await store.publish([envelope("after", data=BODY)])
    await store.close()
    await store.open(migrate=False)
    assert [record.envelope.id for record in await store.reading.recent(0, 999)] == [*acknowledged, "after"]
    await store.close()
