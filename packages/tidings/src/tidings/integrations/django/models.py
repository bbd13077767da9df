"""Dead letters as a model, for the admin: rows of a view, read only."""

from typing import ClassVar

from django.db import models


class DeadLetter(models.Model):
    """An event that a subscription could not handle: dead, parked, or given up in somebody's name."""

    id = models.TextField(primary_key=True)
    subscription = models.TextField()
    position = models.BigIntegerField()
    state = models.TextField()
    type = models.TextField(null=True)
    event_id = models.TextField(null=True)
    key = models.TextField(null=True)
    attempts = models.IntegerField()
    reason = models.TextField(null=True)
    actor = models.TextField(null=True)
    updated = models.DateTimeField()
    failures = models.JSONField(null=True)
    data = models.TextField(null=True)

    class Meta:
        """Who may do what: view, redrive, discard."""

        managed = False
        db_table = '"tidings"."dead_letters"'
        ordering: ClassVar = ["position", "subscription"]
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("redrive_deadletter", "Can let dead letters be tried again"),
            ("discard_deadletter", "Can give dead letters up"),
        ]

    def __str__(self) -> str:
        return f"{self.type or 'event'} at {self.position} for {self.subscription}"
