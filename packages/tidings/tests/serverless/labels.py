"""The function of the tests: `labels.handler` prints a label for each order. What it does goes by the order's name.

Settings come from the environment: TRANSPORT, OUTCOMES, NOTES (a file that gets a line for each run of the handler:
order, attempt, and the seconds of CPU since the process began), KILL_AT and KILLED: at that point of an event named
`victim…` the process ends by SIGKILL, unless the file KILLED says that one has.
"""

import asyncio
import os
import signal
import time
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from tidings import Event, Service, Work, points
from tidings.integrations.aws_lambda import lambda_handler


class OrderPlaced(Event, name="shop.order.placed", version=1, key="order_id"):
    """An order was accepted."""

    order_id: str


class LabelPrinted(Event, name="labels.label.printed", version=1, key="order_id"):
    """Its label was printed; `label` is another one on each try."""

    order_id: str
    label: str
    pid: int


HANDLED: ContextVar[str] = ContextVar("handled", default="")
service = Service("labels", store="none://", transport=os.environ.get("TRANSPORT", "memory://labels"))
service.register(LabelPrinted)


@service.subscribe(OrderPlaced, concurrency=10)
async def print_label(event: OrderPlaced, work: Work) -> None:
    _note(f"{event.order_id} {work.attempt} {time.process_time():.3f}")
    if event.order_id.startswith("poison"):
        raise ValueError("no label for you")
    if event.order_id.startswith("flaky") and _runs(event.order_id) == 1:
        raise ValueError("try again")
    if event.order_id.startswith("slow"):
        await asyncio.sleep(60)
    if event.order_id.startswith("stuck"):
        signal.pause()  # not to be cut off
    if event.order_id.startswith("twin"):
        await asyncio.sleep(0.5)
    HANDLED.set(event.order_id)
    async with work.finish() as tx:
        tx.publish(LabelPrinted(order_id=event.order_id, label=uuid4().hex, pid=os.getpid()))


def _note(line: str) -> None:
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"{line}\n")


def _runs(order: str) -> int:
    return [line.split()[0] for line in Path(os.environ["NOTES"]).read_text().splitlines()].count(order)


def _end_once(point: str) -> None:
    mark = Path(os.environ["KILLED"])
    if HANDLED.get().startswith("victim") and point == os.environ["KILL_AT"] and not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)


if os.environ.get("KILL_AT"):
    points.watch(_end_once)
if os.environ.get("BROKEN"):
    raise RuntimeError("a setting is missing")

handler = lambda_handler(service, outcomes=os.environ.get("OUTCOMES", "file:///tmp"), margin=timedelta(seconds=0.5))
