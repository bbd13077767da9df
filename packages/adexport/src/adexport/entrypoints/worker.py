"""A worker: the consumers without the API, as a further process on the same store."""

from __future__ import annotations

import asyncio
import os
import signal

import click

from adexport.bootstrap import build, running
from adexport.settings import Settings, SettingsError

_GIVES_WAY = 10
"""Steps of niceness: where a worker and an API share processors, the API is asked by people who wait (decision 46)."""


async def work(settings: Settings) -> None:
    """Print where the data is, and run the consumers until SIGTERM or SIGINT, then finish what is under way and return.

    Raises SettingsError where no server has made the data yet: a mistyped folder would get a database of its own.
    """
    _require_data(settings)
    os.nice(_GIVES_WAY)  # its rendering processes inherit it
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(build(settings)):
        click.echo(f"Worker of Ad Export started  ({settings.places}, Ctrl-C stops)")
        await stop.wait()
        click.echo("Stopping: what is under way is finished.")
    click.echo("Worker stopped.")


def _require_data(settings: Settings) -> None:
    if settings.store and settings.files:
        return  # the folder holds only local copies
    missing = settings.data.resolve() / ("" if settings.store else "adexport.db")
    if not missing.exists():
        raise SettingsError(
            f"There is no {missing}, so no server has made this data. Start `adexport serve` on it first, or give"
            " the folder of a server with --data or ADEXPORT_DATA."
        )
