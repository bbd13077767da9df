"""A service starts while what it talks to is away: it publishes and reads, and the rest begins once that answers."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from tidings import Event, Service, Transaction
from tidings.backends.memory import MemoryTransport, open_transport
from tidings.errors import ServiceError, TransportError
from tidings.events import Envelope
from tidings.testing.conformance.transports.opening import real_world
from tidings.transport import Refusal


class Said(Event, name="opening.said", key="account"):
    account: str


class DeniedError(TransportError):
    retryable = False


class Late(MemoryTransport):
    """A transport that cannot be opened before `answers` is set, and complains of being used or closed meanwhile."""

    def __init__(self, name: str, inward: str, error: Exception | None = None) -> None:
        inner = open_transport(f"memory://{name}?in={inward}", real_world())
        self.__dict__.update(inner.__dict__)
        self.error = error or TransportError("The broker is away.")
        self.answers = asyncio.Event()
        self.tries = 0
        self.is_open = False

    async def open(self) -> None:
        self.tries += 1
        if not self.answers.is_set():
            raise self.error
        self.is_open = True
        await super().open()

    async def close(self) -> None:
        assert self.is_open, "closed, and never opened"
        await super().close()

    async def send(self, envelopes: Sequence[Envelope], *, again: bool = False) -> list[Refusal]:
        assert self.is_open, "sent to before it was open"
        return await super().send(envelopes, again=again)


@pytest.fixture
def name(tmp_path: Path) -> str:
    return f"opening-{tmp_path}"


def talking(folder: Path, name: str, transport: MemoryTransport, heard: list[str]) -> Service:
    """A service over a transport; what another one says, it hears."""
    service = Service(name, store=f"sqlite:///{folder}/{name}.db")
    service.transport = service.inward = transport

    @service.subscribe(Said)
    async def hear(event: Said, tx: Transaction) -> None:
        heard.append(event.account)

    return service


async def test_what_is_published_while_a_broker_is_away_goes_out_once_it_answers(tmp_path: Path, name: str) -> None:
    heard: list[str] = []
    late = Late(f"{name}-a", f"{name}-b")
    there = open_transport(f"memory://{name}-b?in={name}-a", real_world())
    saying = talking(tmp_path, "saying", late, heard)
    hearing = talking(tmp_path, "hearing", there, [])
    async with hearing, saying:
        await saying.publish(Said(account="early"))
        await hearing.publish(Said(account="waiting"))
        async with asyncio.timeout(10):
            while late.tries < 2 or "early" not in heard:  # noqa: ASYNC110 - a thread of the service's own
                await asyncio.sleep(0.01)
        assert saying.health()["outages"] == ["landing", "saying:relay"]
        assert saying.health()["status"] == "degraded"
        assert await hearing.store.reading.head() == 1, "nothing has come from the other yet"
        late.answers.set()
        async with asyncio.timeout(20):
            while "waiting" not in heard or await hearing.store.reading.head() < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (saying.health()["status"], saying.health()["outages"]) == ("ok", [])
    assert heard == ["early", "waiting"]


async def test_a_service_whose_broker_never_answers_stops_at_once(tmp_path: Path, name: str) -> None:
    service = talking(tmp_path, "patient", Late(name, f"{name}-in"), [])
    async with service:
        pass
    async with asyncio.timeout(5), service.running(consumers=False):
        await service.publish(Said(account="a"))


async def test_who_neither_lands_nor_relays_asks_no_broker(tmp_path: Path, name: str) -> None:
    late = Late(name, f"{name}-in")
    service = talking(tmp_path, "publishing", late, [])
    async with service.running(consumers=False, relay=False):
        await service.publish(Said(account="a"))
    assert late.tries == 0


@pytest.mark.parametrize("error", [DeniedError("The key is wrong."), ServiceError("There is no such queue.")])
async def test_what_no_further_try_mends_ends_the_start(tmp_path: Path, name: str, error: Exception) -> None:
    service = talking(tmp_path, "wrong", Late(name, f"{name}-in", error), [])
    with pytest.raises(type(error)):
        await service.__aenter__()


async def test_what_turns_out_to_be_wrong_later_is_told_and_tried_again(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    late = Late(name, f"{name}-in")
    async with talking(tmp_path, "later", late, []) as service:
        late.error = ServiceError("There is no such queue.")
        async with asyncio.timeout(10):
            while late.tries < 2:  # noqa: ASYNC110 - a task of the service's own
                await asyncio.sleep(0.01)
        late.answers.set()
        async with asyncio.timeout(20):
            while service.health()["outages"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    told = [record.levelno for record in caplog.records if "no such queue" in record.message]
    assert set(told) == {logging.ERROR}
