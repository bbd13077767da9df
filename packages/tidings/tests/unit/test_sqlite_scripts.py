"""A script of the service's own tables is split as SQLite itself would, whatever its line breaks."""

import pytest

from tidings import Service
from tidings.backends.sqlite.driver import split


@pytest.mark.parametrize(
    ("script", "number"),
    [
        ("", 0),
        ("CREATE TABLE a (x)", 1),
        ("CREATE TABLE a (x); CREATE TABLE b (y);", 2),
        ("CREATE TABLE a (x);\nCREATE TABLE b (y)", 2),
        ("INSERT INTO a VALUES (';'); SELECT 1;", 2),
        ("-- a; comment\nSELECT 1;", 1),
        ("CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; DELETE FROM c; END; SELECT 1;", 2),
    ],
)
def test_statements_end_where_sqlite_ends_them(script: str, number: int) -> None:
    assert len(split(script)) == number
    assert "".join(split(script)) == script


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite+apsw:///:memory:"])
async def test_several_statements_on_one_line_make_every_table(url: str) -> None:
    service = Service("shop", store=url)
    service.schema("CREATE TABLE IF NOT EXISTS a (x); CREATE TABLE IF NOT EXISTS b (y);")
    async with service:
        assert await service.fetch_value("SELECT count(*) FROM b") == 0
