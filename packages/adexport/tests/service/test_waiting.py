"""Requests while the place of the files is away: accepted, and made as soon as it is back."""

import asyncio

from adexport.adapters.local_files import LocalFiles
from adexport.errors import StorageError


async def test_an_export_is_accepted_while_files_cannot_be_stored_and_made_afterwards(open_driver, monkeypatch):
    real = LocalFiles.put

    async def away(self, contents):
        raise StorageError("The folder is gone. Bring it back.")

    async with open_driver() as driver:
        monkeypatch.setattr(LocalFiles, "put", away)
        # Two of the same request: they share one snapshot, and each is made.
        exports = [await driver.start(count=2) for _ in range(2)]
        other = await driver.start(count=1)
        await driver.exporting.cancel(other)
        await asyncio.sleep(0.5)
        assert [await driver.kinds(export_id) for export_id in exports] == [["accepted"], ["accepted"]]
        assert await driver.service.fetch_value("SELECT count(*) FROM adexport_waiting") == 2
        monkeypatch.setattr(LocalFiles, "put", real)
        for export_id in exports:
            export = await driver.over(export_id)
            assert (export.state, export.done) == ("done", 4)
            kinds = await driver.kinds(export_id)
            assert kinds.count("planned") == 1
        assert await driver.kinds(other) == ["accepted", "cancelled"]
        for _ in range(200):  # the cancelled one's may be last
            left = await driver.service.fetch_value("SELECT count(*) FROM adexport_waiting")
            if not left:
                break
            await asyncio.sleep(0.1)
        assert left == 0
