"""Django: publish in `transaction.atomic`, handlers that write through models, migrations, an admin of dead letters.

Add "tidings.integrations.django" to INSTALLED_APPS, and run `manage.py migrate`.
"""

from tidings.integrations.django.executing import django_executor
from tidings.integrations.django.publishing import publish

__all__ = ["django_executor", "publish"]
