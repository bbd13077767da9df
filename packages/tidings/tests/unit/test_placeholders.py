"""The user's SQL for SQLite: placeholders by number, one statement, no control of the transaction."""

import pytest

from tidings import StatementError
from tidings.backends.sqlite.driver import render, split


@pytest.mark.parametrize(
    ("sql", "rendered"),
    [
        ("SELECT $1", "SELECT ?1"),
        ("SELECT $2, $1, $2", "SELECT ?2, ?1, ?2"),
        ("SELECT $10", "SELECT ?10"),
        ("SELECT '$1', \"$1\", [$1], `$1`, $1", "SELECT '$1', \"$1\", [$1], `$1`, ?1"),
        ("SELECT 'it''s $1', $1", "SELECT 'it''s $1', ?1"),
        ("SELECT 1 -- $1\n, $1", "SELECT 1 -- $1\n, ?1"),
        ("SELECT /* $1 ; */ $1", "SELECT /* $1 ; */ ?1"),
        ("SELECT $1;", "SELECT ?1;"),
        ("SELECT $1 ; -- end", "SELECT ?1 ; -- end"),
        ("SELECT ';', $1", "SELECT ';', ?1"),
        ("WITH begin AS (SELECT $1) SELECT * FROM begin", "WITH begin AS (SELECT ?1) SELECT * FROM begin"),
    ],
)
def test_placeholders_are_numbered(sql: str, rendered: str) -> None:
    assert render(sql) == rendered


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "  rollback",
        "-- now\nBEGIN IMMEDIATE",
        "/* x */ SAVEPOINT a",
        "RELEASE a",
        "END",
        "ATTACH 'x' AS y",
        "PRAGMA synchronous = OFF",
        "VACUUM",
    ],
)
def test_control_of_the_transaction_is_refused(sql: str) -> None:
    with pytest.raises(StatementError, match="transaction belongs to Tidings"):
        render(sql)


@pytest.mark.parametrize("sql", ["SELECT 1; COMMIT", "DELETE FROM a; DELETE FROM b", "SELECT 1;/* x */ SELECT 2"])
def test_several_statements_are_refused(sql: str) -> None:
    with pytest.raises(StatementError, match="Several statements"):
        render(sql)


def test_a_script_is_split_at_its_statements_ends_and_keeps_triggers_whole() -> None:
    script = """CREATE TABLE a (x);
    CREATE TRIGGER t AFTER INSERT ON a BEGIN
      INSERT INTO a VALUES (';');
      DELETE FROM a;
    END;
    CREATE TABLE b (y)"""
    assert len(split(script)) == 3
