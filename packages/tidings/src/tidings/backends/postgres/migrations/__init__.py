"""Plain SQL, in the order of the names. A migration must leave the previous version's workers running: it only adds."""

from importlib.resources import files

from tidings.backends.postgres.driver import Session
from tidings.errors import StoreVersionError

LOCK = 7_470_144_001
"""The advisory lock under which one process migrates at a time."""

LOCK_TIMEOUT = "2s"
"""So long a migration waits for a table, because everybody else waits behind it; then all of it is tried again."""


def known() -> list[tuple[str, str]]:
    """Return the name and SQL of every migration this library has."""
    folder = files(__package__)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(name.removesuffix(".sql"), (folder / name).read_text("utf-8")) for name in names]


# Not to_regclass: it may answer from a cache that does not know yet what another process has just made.
_HAS_META = """
SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
                WHERE relname = 'meta' AND nspname = 'tidings')
"""


async def applied(session: Session) -> list[str]:
    """Return the names of the migrations that a database has."""
    if not (await session.rows(_HAS_META))[0][0]:
        return []
    rows = await session.rows("SELECT name FROM tidings.meta WHERE name LIKE 'migration:%' ORDER BY name")
    return [row[0].removeprefix("migration:") for row in rows]


async def apply(session: Session, lanes: int) -> None:
    """Apply what is missing, in the transaction that is open on the session."""
    await session.rows("SELECT pg_advisory_xact_lock($1)", LOCK)
    await session.script(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    done = await applied(session)
    for name, sql in known():
        if name in done:
            continue
        await session.script(sql)
        await session.run("INSERT INTO tidings.meta (name, value) VALUES ($1, now()::text)", f"migration:{name}")
    if not done:
        await session.run("INSERT INTO tidings.meta (name, value) VALUES ('lanes', $1)", str(lanes))


async def check(session: Session) -> None:
    """Raise StoreVersionError if the database lacks a migration that this library needs. It may have newer ones."""
    done = await applied(session)
    missing = [name for name, _ in known() if name not in done]
    if missing:
        raise StoreVersionError(
            f"The database lacks the migrations {', '.join(missing)}: run `tidings store migrate`, or open the service "
            "with migrate=True."
        )
