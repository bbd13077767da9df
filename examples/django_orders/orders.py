"""Orders kept with Django: a view's code publishes in `atomic`, a handler charges through models.

Run it on an empty Postgres database:  python orders.py postgresql://localhost/shop
"""

import asyncio
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
if len(sys.argv) > 1:
    os.environ["DATABASE_URL"] = sys.argv[1]

import shop.services
from django.core.management import call_command
from django.db import connection, models, transaction
from shop.events import OrderCharged, OrderPlaced
from shop.models import Charge, Order

from tidings.integrations.django import publish

service = shop.services.service
charged: set[str] = set()
all_charged = asyncio.Event()


def place(order_id: str, cents: int, *, accepted: bool = True) -> None:
    """Write an order and its event: both, or neither."""
    with transaction.atomic():
        Order.objects.create(id=order_id, cents=cents)
        publish(OrderPlaced(order_id=order_id, cents=cents))
        transaction.set_rollback(not accepted)


def place_all() -> None:
    """Place three orders, and give a fourth up."""
    for number in range(1, 4):
        place(f"order-{number}", 100 * number)
    place("order-4", 400, accepted=False)
    connection.close()


@service.subscribe(OrderCharged)
async def tell(event: OrderCharged) -> None:
    """Say that the money is there."""
    charged.add(event.order_id)
    if len(charged) == 3:
        all_charged.set()


async def run() -> None:
    """Run the service until the orders are charged."""
    async with service:
        await asyncio.to_thread(place_all)
        async with asyncio.timeout(30):
            await all_charged.wait()


def main() -> None:
    """Make the tables, place orders, and see what was charged."""
    call_command("migrate", run_syncdb=True, verbosity=0)
    asyncio.run(run())
    found = Charge.objects.aggregate(orders=models.Count("pk"), cents=models.Sum("cents"))
    print(f"charged {found['orders']} orders, {found['cents']} cents; events: {', '.join(sorted(charged))}")


if __name__ == "__main__":
    main()
