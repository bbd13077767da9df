"""A business transaction of the user's own, in an async session of SQLAlchemy: alone, and with an outbox in it."""

import asyncio
import time

import ours
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tidings.integrations.sqlalchemy import publish

SESSIONS = 8
"""Sessions at work at once, each with a connection."""


class Model(DeclarativeBase):
    """What is mapped here."""


class Purchase(Model):
    """One row of the business."""

    __tablename__ = "purchase"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    order_id: Mapped[str]
    cents: Mapped[int]
    currency: Mapped[str]
    note: Mapped[str]


async def transactions(url: str, count: int, events: int) -> float:
    """Insert `count` rows, each in a transaction that publishes so many events; return transactions per second."""
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=SESSIONS)
    async with engine.begin() as connection:
        await connection.run_sync(Model.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    service = ours.service_on(url)

    async def buy(numbers: range) -> None:
        for number in numbers:
            order = ours.order(number)
            async with sessions() as session, session.begin():
                session.add(
                    Purchase(
                        id=number,
                        order_id=order.order_id,
                        cents=order.cents,
                        currency=order.currency,
                        note=order.note,
                    )
                )
                for ordinal in range(events):
                    publish(session, ours.order(number * events + ordinal), service=service)

    await asyncio.gather(*(buy(range(-1 - n, -n)) for n in range(SESSIONS)))  # connects, and prepares statements
    began = time.perf_counter()
    await asyncio.gather(*(buy(range(n, count, SESSIONS)) for n in range(SESSIONS)))
    rate = count / (time.perf_counter() - began)
    await engine.dispose()
    return rate
