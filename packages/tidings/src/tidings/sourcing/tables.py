"""The tables of one version of a projection: SQL names them in braces, each version has its own."""

import re
from collections.abc import Sequence

from tidings.errors import ServiceError

_NAME = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_MADE = re.compile(r"\bTABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?\{([a-z_][a-z0-9_]*)\}", re.IGNORECASE)

LONGEST = 50
"""Characters of a name in braces: Postgres cuts names off after 63, and two versions would be one table."""

MOST_KNOWN = 1000
"""Statements of a version that are remembered as they are sent."""


class Tables:
    """Writes `{balances}` as `balances_v2`. Names are those that the projection's schema has in braces."""

    def __init__(self, projection: str, schema: str) -> None:
        self._projection = projection
        self._schema = schema
        self._names = frozenset(_NAME.findall(schema))
        self._made = tuple(dict.fromkeys(_MADE.findall(schema)))
        self._written: dict[tuple[str, int], str] = {}
        if not self._made:
            raise ServiceError(
                f"Projection {projection}: its schema makes no table of its own; write for example CREATE TABLE IF NOT "
                "EXISTS {totals} (…), in braces, because each version has its own."
            )
        if long := next((name for name in sorted(self._names) if len(name) > LONGEST), None):
            raise ServiceError(
                f"Projection {projection}: the name {{{long}}} has {len(long)} characters, and its versions need room "
                f"for their numbers: shorten it to {LONGEST}."
            )

    @property
    def names(self) -> frozenset[str]:
        """The names that SQL may have in braces."""
        return self._names

    def of(self, version: int) -> tuple[str, ...]:
        """Return the names of a version's tables, as the database has them."""
        return tuple(_versioned(name, version) for name in self._made)

    def schema(self, version: int) -> str:
        """Return the SQL that makes a version's tables."""
        return self.write(self._schema, version)

    def write(self, sql: str, version: int) -> str:
        """Return SQL with the names of a version's tables; raises ServiceError for a name that the schema lacks."""
        known = self._written.get((sql, version))
        if known is None:
            known = _NAME.sub(lambda found: self._table(found[1], version), sql)
            if len(self._written) >= MOST_KNOWN:  # SQL that is made up each time
                self._written.clear()
            self._written[sql, version] = known
        return known

    def _table(self, name: str, version: int) -> str:
        if name not in self._names:
            raise ServiceError(
                f"Projection {self._projection}: {{{name}}} is none of its tables, which are "
                f"{', '.join(sorted(self._names))}: only names that its schema has in braces belong to a version."
            )
        return _versioned(name, version)


def write_over(sql: str, of: Sequence[tuple[Tables, int]]) -> str:
    """Return SQL with the names of the tables of several projections, each of one version; raises ServiceError."""

    def named(found: re.Match[str]) -> str:
        for tables, version in of:
            if found[1] in tables.names:
                return _versioned(found[1], version)
        known = ", ".join(sorted(name for tables, _ in of for name in tables.names)) or "none"
        raise ServiceError(f"{found[0]} is no table of the projections that this query reads, which have {known}.")

    return _NAME.sub(named, sql)


def _versioned(name: str, version: int) -> str:
    return f"{name}_v{version}"
