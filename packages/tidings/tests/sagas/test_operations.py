"""What an operator sees of sagas, and does to them: on the store, and with the command line in a process of its own."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from saga_shop import (
    Offer,
    OrderPlaced,
    OutOfStock,
    PaymentTaken,
    Refund,
    RefundFailed,
    Refused,
    Release,
    Reserve,
    TakePayment,
    order_saga,
)

from tidings import Event, OperationError, Service
from tidings.operations import cancel_saga, pause, resume, resume_saga, saga, sagas, skip_compensation
from tidings.testing import Harness, harness

BY: dict[str, Any] = {"actor": "ann", "reason": "the bank is back", "now": 0}


@pytest.fixture
async def h() -> AsyncIterator[Harness]:
    service = Service("shop", store="sqlite:///:memory:")
    service.saga(order_saga())
    service.register(TakePayment, Refund, Refused, Release, Reserve, Offer)
    async with harness(service) as running:
        yield running


async def told(h: Harness, *events: Event) -> None:
    for event in events:
        await h.publish(event)
        await h.settled()


async def stuck(h: Harness) -> None:
    placed, paid = OrderPlaced(order_id="o-1"), PaymentTaken(order_id="o-1")
    await told(h, placed, paid, OutOfStock(order_id="o-1"), RefundFailed(order_id="o-1"))


async def test_a_stuck_saga_is_seen_and_resumed_once(h: Harness) -> None:
    await stuck(h)
    [row] = await sagas(h.service.store)
    assert (row.id, row.status, row.timers) == ("o-1", "stuck", {})
    await pause(h.service.store, "order", actor="ann", reason="to look first")
    await resume_saga(h.service.store, "order", "o-1", **BY)
    with pytest.raises(OperationError, match="asked to resume already"):
        await resume_saga(h.service.store, "order", "o-1", **BY)
    await resume(h.service.store, "order")
    await h.settled()
    found = await saga(h.service.store, "order", "o-1")
    assert found.row.status == "compensating"
    assert set(found.due) == {"undo payment"}
    assert found.row.journal[-1].text == "resume by ann: the bank is back; takes payment back"
    assert len(h.published(Refund)) == 2
    with pytest.raises(OperationError, match="only a stuck one can resume"):
        await resume_saga(h.service.store, "order", "o-1", **BY)


async def test_what_was_done_by_hand_is_skipped(h: Harness) -> None:
    await stuck(h)
    await skip_compensation(h.service.store, "order", "o-1", **BY)
    await h.settled()
    assert (len(h.published(Refund)), len(h.published(Refused))) == (1, 1)
    [row] = await sagas(h.service.store, statuses=("compensated",))
    assert row.expires is not None
    with pytest.raises(OperationError, match="it has ended"):
        await skip_compensation(h.service.store, "order", "o-1", **BY)


async def test_a_running_one_is_cancelled(h: Harness) -> None:
    await told(h, OrderPlaced(order_id="o-1"))
    await cancel_saga(h.service.store, "order", "o-1", **BY)
    await h.settled()
    [row] = await sagas(h.service.store)
    assert (row.status, row.reason) == ("compensating", "cancelled: the bank is back")
    with pytest.raises(OperationError, match="only one that runs"):
        await cancel_saga(h.service.store, "order", "o-1", **BY)


async def test_wrong_names_are_told(h: Harness) -> None:
    with pytest.raises(OperationError, match="named: none yet"):
        await saga(h.service.store, "order", "o-1")
    await told(h, OrderPlaced(order_id="o-1"))
    with pytest.raises(OperationError, match="named: order"):
        await resume_saga(h.service.store, "ordre", "o-1", **BY)
    with pytest.raises(OperationError, match="in somebody's name"):
        await cancel_saga(h.service.store, "order", "o-1", actor=" ", reason="x", now=0)


class Shop:
    """A service on a file, and the command line beside it."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite+apsw:///{folder}/shop.db"

    def run(self, *args: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "tidings.cli", "saga", *args, "--store", self.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout or done.stderr

    async def serve(self, *events: Event, status: str, version: int = 1) -> None:
        service = Service("shop", store=self.url)
        service.saga(order_saga())
        service.register(TakePayment, Refund, Refused, Release, Reserve)
        async with service, asyncio.timeout(20):
            for event in events:
                await service.publish(event)
            while True:
                row = await service.store.reading.load_saga("order", "o-1")
                if row is not None and row.status == status and row.version >= version:
                    return
                await asyncio.sleep(0.01)


async def test_the_command_line(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    run, serve = shop.run, shop.serve
    await serve(OrderPlaced(order_id="o-1"), PaymentTaken(order_id="o-1"), status="running", version=2)
    assert "o-1  running       2  stock" in run("list")
    assert "called off" not in run("cancel", "order", "o-1", "--reason", "a mistake", "--yes")
    await serve(status="compensating")
    await serve(RefundFailed(order_id="o-1"), status="stuck")
    assert "the compensation of payment failed" in run("list", "--status", "stuck")
    assert "goes on" in run("resume", "order", "o-1", "--reason", "the bank is back", "--actor", "ann")
    await serve(status="compensating")
    shown = run("show", "order", "o-1")
    assert "resume by ann: the bank is back; takes payment back" in shown
    assert "undo payment: in" in shown
    document = json.loads(run("show", "order", "o-1", "--json"))
    assert (document["status"], document["state"]["undo"]) == ("compensating", ["payment"])
    await serve(RefundFailed(order_id="o-1"), status="stuck")
    assert "goes on with what follows" in run("skip", "order", "o-1", "--reason", "by hand", "--yes")
    await serve(status="compensated")
    assert run("list") == "Nothing matches.\n"
    assert json.loads(run("list", "--status", "compensated", "--json"))[0]["id"] == "o-1"
    assert "only a stuck" not in run("skip", "order", "o-1", "--reason", "again", "--yes", code=1)
    assert "knows no saga" in run("show", "order", "o-2", code=1)
