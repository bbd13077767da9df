"""Old exports go with their files; what another export, a feed or a picture still needs stays."""

import os
from datetime import timedelta

import pytest

from adexport.errors import FileMissingError
from adexport.retention import Retention
from adexport.settings import SettingsError

NINETY = timedelta(days=90)


async def ours():
    """The files are those of this database."""


def retention(driver, keep=NINETY, claim=ours):
    return Retention(driver.service, driver.application.exports, driver.application.files, keep, claim)


async def age(driver, export_id, days):
    """Let an export, and every file there is, be older."""
    await driver.application.exports.wait_until_caught_up()
    async with driver.service.transaction() as tx:
        for column in ("created_us", "started_us", "finished_us"):
            sql = f"UPDATE adexport_exports_v1 SET {column} = {column} - $2 WHERE id = $1"
            await tx.execute(sql, export_id, days * 86_400_000_000)
    for path in driver.application.settings.files_folder.rglob("*"):
        if path.is_file():
            past = path.stat().st_mtime - days * 86_400
            os.utime(path, (past, past))


async def rows_of(driver, export_id):
    tables = ("adexport_cell", "adexport_progress", "adexport_idempotency")
    counts = [f"(SELECT count(*) FROM {table} WHERE export_id = $1)" for table in tables]
    return await driver.service.fetch_value(f"SELECT {' + '.join(counts)}", export_id)


async def test_an_old_export_goes_with_the_files_that_nobody_else_uses(open_driver):
    async with open_driver() as driver:
        files, now = driver.application.files, driver.application.now()
        feed = await driver.application.catalogue.keep_feed(b"headline\nHello\n", "feed.csv")
        old = await driver.start(count=2)
        await driver.over(old)
        of_old = {cell.sha256 for cell in await driver.queries.all_cells(old)}
        snapshot = (await driver.queries.get_export(old)).snapshot
        await age(driver, old, 92)
        young = await driver.start(count=1)  # the same files as of the first row
        await driver.over(young)
        of_young = {cell.sha256 for cell in await driver.queries.all_cells(young)}
        assert len(of_old - of_young) == len(of_young) == 2
        assert await retention(driver).clean(now) == (1, 3)
        assert await driver.queries.get_export(old) is None
        assert await rows_of(driver, old) == 0
        for digest in (*(of_old - of_young), snapshot):
            with pytest.raises(FileMissingError):
                await files.read(digest)
        for digest in (*of_young, feed.id):
            assert await files.read(digest)
        assert await retention(driver).clean(now) == (0, 0)
        again = await driver.start(count=2)
        assert (await driver.over(again)).done == 4


async def test_an_export_stays_for_its_days_and_while_it_is_asked_for_again(open_driver):
    async with open_driver() as driver:
        export_id = await driver.start(formats=["webp", "png"], max_bytes=560)
        await driver.over(export_id)
        await age(driver, export_id, 89)
        now = driver.application.now()
        assert await retention(driver).clean(now) == (0, 0)
        await age(driver, export_id, 3)
        assert await retention(driver, None).clean(now) == (0, 0)
        await driver.exporting.retry(export_id)
        await driver.over(export_id)
        assert await retention(driver).clean(now) == (0, 0)
        for cell in await driver.queries.export_cells(export_id, state="done"):
            assert await driver.application.files.read(cell.sha256)


async def test_the_files_of_another_database_stay(open_driver):
    """It is asked once more before anything goes: at the start their place may have been away."""

    async def not_ours():
        raise SettingsError("The files belong to another database.")

    async with open_driver() as driver:
        export_id = await driver.start()
        await driver.over(export_id)
        digests = {cell.sha256 for cell in await driver.queries.all_cells(export_id)}
        await age(driver, export_id, 92)
        with pytest.raises(SettingsError):
            await retention(driver, claim=not_ours).clean(driver.application.now())
        assert await driver.application.files.present(list(digests)) == digests
