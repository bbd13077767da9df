"""The Django app."""

from django.apps import AppConfig


class TidingsConfig(AppConfig):
    """The log's tables by `migrate`, and dead letters in the admin."""

    name = "tidings.integrations.django"
    label = "tidings"
    verbose_name = "Tidings"
    default_auto_field = "django.db.models.BigAutoField"
