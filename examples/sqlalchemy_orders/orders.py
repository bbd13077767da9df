"""Orders kept with SQLAlchemy: the web side publishes in its session, a handler charges in a session of its own.

Run it on an empty Postgres database:  python orders.py postgresql://localhost/shop
"""

import asyncio
import sys

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tidings import Event, Service
from tidings.integrations.sqlalchemy import publish, sqlalchemy_executor


class OrderPlaced(Event, name="shop.order.placed", key="order_id"):
    """A customer's order was accepted for payment."""

    order_id: str
    cents: int


class OrderCharged(Event, name="shop.order.charged", key="order_id"):
    """The money of an order has arrived."""

    order_id: str


class Model(DeclarativeBase):
    """What the tables of this service have in one catalogue."""


class Order(Model):
    """An order, as it was placed."""

    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]


class Charge(Model):
    """The money of an order. Two for one order would be refused."""

    __tablename__ = "charges"
    order_id: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]


url = sys.argv[1] if len(sys.argv) > 1 else "postgresql://localhost/shop"
engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
sessions = async_sessionmaker(engine, expire_on_commit=False)
service = Service("shop", store=url)
all_charged = asyncio.Event()


async def place(order_id: str, cents: int, *, accepted: bool = True) -> None:
    """Write an order and its event: both, or neither."""
    async with sessions() as session:
        session.add(Order(id=order_id, cents=cents))
        publish(session, OrderPlaced(order_id=order_id, cents=cents))
        await (session.commit() if accepted else session.rollback())


@service.subscribe(OrderPlaced, ordered=True, executor=sqlalchemy_executor(sessions))
async def charge(event: OrderPlaced, session: AsyncSession) -> None:
    """Charge an order; the session's commit settles the event too."""
    session.add(Charge(order_id=event.order_id, cents=event.cents))
    publish(session, OrderCharged(order_id=event.order_id))


charged: set[str] = set()


@service.subscribe(OrderCharged)
async def tell(event: OrderCharged) -> None:
    """Say that the money is there."""
    charged.add(event.order_id)
    if len(charged) == 3:
        all_charged.set()


async def main() -> None:
    """Place three orders and give a fourth up; see what was charged."""
    async with engine.begin() as connection:
        await connection.run_sync(Model.metadata.create_all)
    async with service:
        for number in range(1, 4):
            await place(f"order-{number}", 100 * number)
        await place("order-4", 400, accepted=False)
        async with asyncio.timeout(30):
            await all_charged.wait()
    async with sessions() as session:
        orders, cents = (await session.execute(select(func.count(), func.sum(Charge.cents)))).one()
    print(f"charged {orders} orders, {cents} cents; events: {', '.join(sorted(charged))}")
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
