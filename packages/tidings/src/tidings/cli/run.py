"""`tidings run`: one worker in this process, or several in processes that are watched over."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

import click

from tidings.cli.failing import SERVICE, CommandError
from tidings.cli.opening import app_dir_option, load_service
from tidings.cli.showing import tell
from tidings.cli.supervising import Supervisor
from tidings.service import Service

ENDING_SECONDS = 15.0
"""So long after the grace time a process may take to release its leases and end."""

NOT_ENDED = 75
"""Exit code of a process that ended without a handler of its own (EX_TEMPFAIL of sysexits.h)."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@click.command()
@click.argument("target", metavar="MODULE:SERVICE")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes; more than one needs a store that several may write.",
)
@click.option(
    "--only",
    type=click.Choice(["relay", "consumers"]),
    help="Only carry events to the transport, or only handle subscriptions.",
)
@app_dir_option
@click.option("--supervised", is_flag=True, hidden=True, help="End when standard input does.")
def run(target: str, workers: int, only: str | None, app_dir: str, supervised: bool) -> None:
    """Run a service until SIGTERM or Ctrl-C; then handlers finish within the grace time. A second signal ends it."""
    service = load_service(target, app_dir)
    service.resolve()
    _check(service, target, workers, only)
    if workers > 1:
        arguments = ["run", target, "--app-dir", app_dir, "--supervised", *(["--only", only] if only else [])]
        code = asyncio.run(Supervisor(arguments, workers, tell).run())
        if code:
            sys.exit(code)
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(_serve(service, only, supervised))


def _check(service: Service, target: str, workers: int, only: str | None) -> None:
    what = f"{target} cannot be run like this."
    if only == "relay" and service.transport is None:
        do = "Give the service a transport, or leave --only away."
        raise CommandError(what, f"{service.name} has no transport, so there is nothing to relay", do, SERVICE)
    if workers > 1 and ":memory:" in service.store_url:
        do = "Run one worker, or name a file: sqlite+apsw:///file.db."
        raise CommandError(what, "Its store is in memory, so several processes would have one each", do, SERVICE)
    if workers > 1 and not service.store.several_processes:
        why = f"its store {service.store_url} must be written by one process only: this SQLite can corrupt it else"
        do = "Run one worker, or install tidings[apsw] and write sqlite+apsw:// wherever the file is opened."
        raise CommandError(what, why, do, SERVICE)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _end_hard_after(seconds: float) -> None:
    """End the process after so long whatever its handlers do: one may swallow its cancellation, or block the loop."""

    def end() -> None:
        tell(
            f"A handler has not ended within {seconds:g} s, so the process ends without it. What it had not settled is "
            "tried again by another worker."
        )
        os._exit(NOT_ENDED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def _serve(service: Service, only: str | None, supervised: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def begin_to_stop() -> None:
        _end_hard_after(service.grace.total_seconds() + ENDING_SECONDS)
        stop.set()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        tell("Stopping: nothing new is taken, and handlers finish. A second signal ends it hard.")
        begin_to_stop()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    if supervised:
        loop.add_reader(sys.stdin.fileno(), begin_to_stop)
    async with service.running(consumers=only != "relay", relay=only != "consumers"):
        assert service.worker is not None  # it is running
        tell(f"{service.name} is running as {service.worker.id} (process {os.getpid()}). Ctrl-C stops it.")
        await stop.wait()
    if supervised:
        loop.remove_reader(sys.stdin.fileno())
    tell(f"{service.name} has stopped.")
