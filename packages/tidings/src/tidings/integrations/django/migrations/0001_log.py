"""The log with everything that hangs on it, and the view that the admin of dead letters reads."""

from typing import Any

from django.db import migrations, models

from tidings.backends.postgres import migrations as ours
from tidings.backends.postgres.store import LANES
from tidings.consuming.executor import driven
from tidings.integrations.django.sessions import DjangoSession

# jsonb takes no NUL, which failures noted by an older release may hold; what JSON takes for it is as long.
VIEW = r"""
CREATE VIEW tidings.dead_letters AS
SELECT h.subscription || '@' || h.position AS id, h.subscription, h.position, h.state, h.key, h.attempts, h.reason,
       h.actor, to_timestamp(h.updated / 1e6) AS updated,
       l.type,
       l.id AS event_id,
       replace(convert_from(h.failures, 'UTF8'), '\u0000', '\ufffd')::jsonb AS failures,
       convert_from(l.data, 'UTF8') AS data
  FROM tidings.held h LEFT JOIN tidings.log l USING (position)
 WHERE h.state IN ('dead', 'parked', 'discarded')
"""


def apply(_apps: Any, schema_editor: Any) -> None:
    """Make the tables, unless `tidings store migrate` or a service has made them. Only on Postgres."""
    if schema_editor.connection.vendor == "postgresql":
        driven(ours.apply(DjangoSession(schema_editor.connection), LANES))
        schema_editor.execute("DROP VIEW IF EXISTS tidings.dead_letters")
        schema_editor.execute(VIEW)


def unapply(_apps: Any, schema_editor: Any) -> None:
    """Remove the view. The log stays: it is not for Django alone."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP VIEW IF EXISTS tidings.dead_letters")


class Migration(migrations.Migration):
    """Makes the tables, and Django's permissions on dead letters."""

    initial = True
    dependencies: list[tuple[str, str]] = []  # noqa: RUF012  # Django's form
    operations = [  # noqa: RUF012
        migrations.RunPython(apply, unapply),
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                ("id", models.TextField(primary_key=True, serialize=False)),
                ("subscription", models.TextField()),
                ("position", models.BigIntegerField()),
                ("state", models.TextField()),
                ("type", models.TextField(null=True)),
                ("event_id", models.TextField(null=True)),
                ("key", models.TextField(null=True)),
                ("attempts", models.IntegerField()),
                ("reason", models.TextField(null=True)),
                ("actor", models.TextField(null=True)),
                ("updated", models.DateTimeField()),
                ("failures", models.JSONField(null=True)),
                ("data", models.TextField(null=True)),
            ],
            options={
                "db_table": '"tidings"."dead_letters"',
                "managed": False,
                "ordering": ["position", "subscription"],
                "default_permissions": ("view",),
                "permissions": [
                    ("redrive_deadletter", "Can let dead letters be tried again"),
                    ("discard_deadletter", "Can give dead letters up"),
                ],
            },
        ),
    ]
