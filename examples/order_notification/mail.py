"""Mail: hears that an order was placed, asks what is in it, and writes a letter; it keeps no address."""

import os
from datetime import timedelta

import httpx
from contract import Order, OrderById, OrderPlaced
from msgspec import json

from tidings import ReferenceGoneError, RetryPolicy, Service, Work

service = Service("mail", store=os.environ["STORE"])
service.schema("CREATE TABLE IF NOT EXISTS letters (order_id TEXT PRIMARY KEY, text TEXT NOT NULL)")
PATIENT = RetryPolicy(attempts=20, backoff=timedelta(milliseconds=50))


@service.query(OrderById)
async def order_by_id(query: OrderById) -> Order | None:
    """Ask the orders' API. An error that is none of these is one of the delivery, which is retried."""
    async with httpx.AsyncClient(base_url=os.environ["ORDERS"]) as client:
        answer = await client.get(f"/orders/{query.order}")
    if answer.status_code == 404:
        return None
    if answer.status_code == 410:
        raise ReferenceGoneError(f"Order {query.order} was removed.")
    return json.decode(answer.raise_for_status().content, type=Order)


@service.subscribe(OrderPlaced, start="beginning", retry=PATIENT)
async def confirm(event: OrderPlaced, work: Work) -> None:
    """Write to whoever has the order now. An answer older than the event raises, and the delivery is retried."""
    try:
        found = await service.look_up(OrderById(order=event.order), version=event.version)
    except ReferenceGoneError:
        text = "no letter: the order was removed meanwhile"
    else:
        text = f"{found.item} goes to {found.address}"
        if found.version > event.version:
            text += f" (as of version {found.version}; the event spoke of {event.version})"
    async with work.finish() as tx:
        await tx.execute("INSERT INTO letters (order_id, text) VALUES ($1, $2)", event.order, text)
