"""Runs both services in one process, and shows what a thin event leads to when the order has moved on, or is gone.

On SQLite:    python run.py                                      (a new file in a temporary folder)
On Postgres:  python run.py postgresql://localhost/shop          (an empty database)
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI app on a free port; yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def main() -> None:
    """Place orders, change two of them before the mail service looks, and print its letters."""
    import orders

    execute = orders.service.execute
    async with orders.service, serving(orders.api) as address, asyncio.timeout(60):
        os.environ["ORDERS"] = address
        for name in ("o-1", "o-2", "o-3"):
            await execute(orders.Place(order=name, item="a lamp", address="Elm Street 1"))
        await execute(orders.Move(order="o-2", address="Oak Lane 2"))
        done = await execute(orders.Remove(order="o-3"))
        await orders.orders.wait_until_caught_up(done.envelopes[-1])

        import mail

        async with mail.service:
            await execute(orders.Place(order="o-4", item="a chair", address="Elm Street 1"))
            sql = "SELECT order_id, text FROM letters ORDER BY order_id"
            while len(letters := await mail.service.fetch_all(sql)) < 4:  # noqa: ASYNC110 - rows
                await asyncio.sleep(0.02)
            for order, text in letters:
                print(f"{order}: {text}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STORE"] = sys.argv[1] if len(sys.argv) > 1 else f"sqlite+apsw:///{folder}/shop.db"
        asyncio.run(main())
