"""Orders: takes commands, keeps addresses to itself, and tells others only which order it is about."""

import os
from collections.abc import Sequence

from contract import Order, OrderById, OrderPlaced
from msgspec import Struct, json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidings import Command, Decider, Event, ReadModel, ReadOnly, ReferenceGoneError, Service, Transaction

service = Service("orders", store=os.environ["STORE"])


class Place(Command, stream="order-{order}"):
    """Place an order."""

    order: str
    item: str
    address: str


class Move(Command, stream="order-{order}"):
    """Send it to another address."""

    order: str
    address: str


class Remove(Command, stream="order-{order}"):
    """Forget it."""

    order: str


class Placed(Event, name="orders.placed", key="order"):
    """An order was placed."""

    order: str
    item: str
    address: str


class Moved(Event, name="orders.moved", key="order"):
    """It goes elsewhere."""

    order: str
    address: str


class Removed(Event, name="orders.removed", key="order"):
    """It is no more."""

    order: str


OrderEvent = Placed | Moved | Removed


class State(Struct, frozen=True):
    """What a decision needs to know."""

    is_open: bool = False


def decide(command: Place | Move | Remove, state: State) -> Sequence[OrderEvent]:
    """Return what happens; what is not open can only be placed."""
    match command:
        case Place(order=order, item=item, address=address):
            return [] if state.is_open else [Placed(order=order, item=item, address=address)]
        case Move(order=order, address=address) if state.is_open:
            return [Moved(order=order, address=address)]
        case Remove(order=order) if state.is_open:
            return [Removed(order=order)]
        case _:
            return []


def evolve(state: State, event: OrderEvent) -> State:
    """Return the state after an event."""
    return State(is_open=not isinstance(event, Removed))


order: Decider[Place | Move | Remove, State, OrderEvent] = Decider(
    name="order", initial=State, decide=decide, evolve=evolve, events=(Placed, Moved, Removed)
)
service.handle(Place, Move, Remove, by=order)

orders = service.projection(
    "orders",
    schema="CREATE TABLE IF NOT EXISTS {orders} "
    "(id TEXT PRIMARY KEY, version BIGINT NOT NULL, item TEXT, address TEXT, removed BOOLEAN NOT NULL)",
)


@orders.on(Placed)
async def placed(event: Placed, model: ReadModel) -> None:
    """Begin at version 1, or again after it was removed: the version counts on with the stream."""
    await model.execute(
        "INSERT INTO {orders} (id, version, item, address, removed) VALUES ($1, 1, $2, $3, FALSE) ON CONFLICT (id) DO "
        "UPDATE SET version = {orders}.version + 1, item = excluded.item, address = excluded.address, removed = FALSE",
        event.order,
        event.item,
        event.address,
    )


@orders.on(Moved)
async def moved(event: Moved, model: ReadModel) -> None:
    """Count up with the stream."""
    sql = "UPDATE {orders} SET version = version + 1, address = $2 WHERE id = $1"
    await model.execute(sql, event.order, event.address)


@orders.on(Removed)
async def removed(event: Removed, model: ReadModel) -> None:
    """Keep that there was one, and nothing else: so "gone" can be told from "not known yet"."""
    sql = "UPDATE {orders} SET version = version + 1, item = NULL, address = NULL, removed = TRUE WHERE id = $1"
    await model.execute(sql, event.order)


@service.subscribe(Placed, ordered=True)
async def announce(event: Placed, tx: Transaction) -> None:
    """Tell others: which order, and how old it was."""
    assert tx.envelope is not None  # of a handler's transaction
    tx.publish(OrderPlaced(order=event.order, version=tx.envelope.stream_version or 1))


@service.query(OrderById, orders)
async def order_by_id(query: OrderById, read: ReadOnly) -> Order | None:
    """Answer from the projection."""
    row = await read.fetch_one("SELECT version, item, address, removed FROM {orders} WHERE id = $1", query.order)
    if row is not None and row["removed"]:
        raise ReferenceGoneError(f"Order {query.order} was removed.")
    return Order(row["version"], row["item"], row["address"]) if row is not None else None


async def get_order(request: Request) -> Response:
    """Answer others: 404 is "not known", 410 is "gone"."""
    try:
        found = await service.ask(OrderById(order=request.path_params["order"]))
    except ReferenceGoneError:
        return Response(status_code=410)
    if found is None:
        return Response(status_code=404)
    return Response(json.encode(found), media_type="application/json")


api = Starlette(routes=[Route("/orders/{order}", get_order)])
