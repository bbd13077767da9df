"""Plain SQL, in the order of the names. `tidings store migrate --print` shows it; the embedded default applies it."""

from importlib.resources import files

from tidings.backends.sqlite.driver import Connection
from tidings.errors import StoreVersionError


def known() -> list[tuple[str, str]]:
    """Return the name and SQL of every migration this library has."""
    folder = files(__package__)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(name.removesuffix(".sql"), (folder / name).read_text("utf-8")) for name in names]


def applied(connection: Connection) -> list[str]:
    """Return the names of the migrations that a database has."""
    if not connection.rows("SELECT 1 FROM sqlite_schema WHERE name = 'tidings_meta'"):
        return []
    rows = connection.rows("SELECT name FROM tidings_meta WHERE name LIKE 'migration:%' ORDER BY name")
    return [row[0].removeprefix("migration:") for row in rows]


def apply(connection: Connection, lanes: int) -> None:
    """Apply what is missing, all of it in one transaction that is open already."""
    done = applied(connection)
    for name, sql in known():
        if name in done:
            continue
        connection.script(sql)
        connection.run("INSERT INTO tidings_meta (name, value) VALUES (?1, datetime('now'))", (f"migration:{name}",))
    if not done:
        connection.run("INSERT INTO tidings_meta (name, value) VALUES ('lanes', ?1)", (str(lanes),))


def check(connection: Connection, place: str) -> None:
    """Raise StoreVersionError unless the database has exactly what this library knows, or more that is compatible."""
    missing = [name for name, _ in known() if name not in applied(connection)]
    if missing:
        raise StoreVersionError(
            f"{place} lacks the migrations {', '.join(missing)}: run `tidings store migrate`, or open the service once."
        )
