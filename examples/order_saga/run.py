"""Runs the three services as three processes, places four orders, and shows what became of the money and the goods.

On SQLite:    python run.py                                      (a new file in a temporary folder)
On Postgres:  python run.py postgresql://localhost/shop          (an empty database)
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SERVICES = ("orders", "payments", "inventory")


async def start(name: str) -> asyncio.subprocess.Process:
    """Start a service in a process of its own, as `tidings run` does."""
    command = ("-m", "tidings.cli", "run", f"{name}:service", "--app-dir", str(HERE))
    return await asyncio.create_subprocess_exec(sys.executable, *command)


async def main() -> None:
    """Give ann 500 cents and the shop two lamps; place orders that go well, cost too much, and come too late."""
    import inventory
    import orders
    import payments

    async with payments.service.running(consumers=False), inventory.service.running(consumers=False):
        async with payments.service.transaction() as tx:
            await tx.execute("INSERT INTO accounts VALUES ('ann', 500)")
        async with inventory.service.transaction() as tx:
            await tx.execute("INSERT INTO stock VALUES ('lamp', 2)")
    processes = [await start(name) for name in SERVICES]
    try:
        async with orders.service.running(consumers=False), asyncio.timeout(60):
            while len(await orders.service.store.reading.subscriptions()) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # every service has said what it takes
            for order_id, cents in (("o-1", 100), ("o-2", 900), ("o-3", 100), ("o-4", 100)):
                await orders.place(order_id, "ann", "lamp", cents)
                print(f"{order_id}: {await ended(order_id)}")
            print(f"ann has {await ask('SELECT cents FROM accounts')} cents, ", end="")
            print(f"the shop has {await ask('SELECT number FROM stock')} lamps")
    finally:
        for process in processes:
            process.terminate()
            await process.wait()


async def ended(order_id: str) -> object:
    """Return how an order ended, once it has."""
    while (status := await ask("SELECT status FROM orders WHERE id = $1", order_id)) == "placed":  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return status


async def ask(sql: str, *args: str) -> object:
    """Return one value from the store that all of them share."""
    import orders

    value: object = await orders.service.fetch_value(sql, *args)
    return value


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STORE"] = sys.argv[1] if len(sys.argv) > 1 else f"sqlite+apsw:///{folder}/shop.db"
        asyncio.run(main())
