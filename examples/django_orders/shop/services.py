"""What the shop does with what it hears. In production: `tidings run shop.services:service` beside the web server."""

import django
from django.conf import settings

django.setup()

from shop.events import OrderCharged, OrderPlaced  # noqa: E402
from shop.models import Charge  # noqa: E402
from tidings import Service  # noqa: E402
from tidings.integrations.django import django_executor, publish  # noqa: E402

service = Service("shop", store=settings.DATABASE_URL, migrate=False)


@service.subscribe(OrderPlaced, ordered=True, executor=django_executor())
def charge(event: OrderPlaced) -> None:
    """Charge an order; the commit of `atomic` settles the event too."""
    Charge.objects.create(order_id=event.order_id, cents=event.cents)
    publish(OrderCharged(order_id=event.order_id))
