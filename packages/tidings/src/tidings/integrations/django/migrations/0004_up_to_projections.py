"""The library's own migrations since the first, up to projections."""

from typing import Any

from django.db import migrations

from tidings.backends.postgres import migrations as ours
from tidings.backends.postgres.store import LANES
from tidings.consuming.executor import driven
from tidings.integrations.django.sessions import DjangoSession


def apply(_apps: Any, schema_editor: Any) -> None:
    """Apply what the library has and the database lacks. Only on Postgres."""
    if schema_editor.connection.vendor == "postgresql":
        driven(ours.apply(DjangoSession(schema_editor.connection), LANES))


class Migration(migrations.Migration):
    """Brings the log to the library's version."""

    dependencies: list[tuple[str, str]] = [("tidings", "0003_up_to_sagas")]  # noqa: RUF012  # Django's form
    operations = [migrations.RunPython(apply, migrations.RunPython.noop)]  # noqa: RUF012
