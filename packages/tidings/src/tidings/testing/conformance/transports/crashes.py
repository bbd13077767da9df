"""Suite: a receiver or a sender is killed, the broker is started again: what was promised to anybody stays true."""

# ruff: noqa: D102 - the names of the tests say what they do

import asyncio
import json
from pathlib import Path

from tidings.errors import TransportError
from tidings.events import Envelope
from tidings.testing.conformance.samples import envelope
from tidings.testing.conformance.transports.children import Children
from tidings.testing.conformance.transports.opening import SHORT_LEASE, TransportOpening
from tidings.transport import Transport


class CrashSuite(TransportOpening):
    """Part of TransportSuite."""

    async def test_what_a_killed_receiver_had_comes_again(self, tmp_path: Path) -> None:
        self.lease = SHORT_LEASE
        sent = [envelope(f"e{number}", key="k") for number in range(12)]
        async with self.opened(tmp_path) as transport, self._children(tmp_path) as children:
            await self.send(transport, sent)
            child = await children.start("receive", self.url(tmp_path, self.queue, self.queue), settle=3, hold=4)
            settled, held = await child.facts(2)
            await child.kill()
            assert len(settled) == 3
            assert held
            wanted = {each.id for each in sent} - set(settled)
            found = {each.id for each in await self.drained(transport, wanted)}
        assert found == wanted, "what was settled came again"

    async def test_what_a_killed_sender_was_told_is_sent_is_there(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as transport, self._children(tmp_path) as children:
            child = await children.start("send", self.url(tmp_path, self.queue, self.queue), count=100_000)
            told = [event_id for fact in await child.facts(20) for event_id in fact]
            told += [event_id for line in await child.kill() for event_id in json.loads(line)]
            await self.drained(transport, told)

    async def test_a_broker_that_starts_again_has_what_it_had(self, tmp_path: Path) -> None:
        self.lease = SHORT_LEASE
        sent = [envelope(f"e{number}", key=f"k{number % 3}") for number in range(30)]
        async with self.opened(tmp_path) as transport:
            await self.send(transport, sent[:20])
            had = await self.received(transport, 6, settle=False)
            await transport.settle(had[:2])
            await self.restart()
            await _send_until_taken(transport, sent[20:])
        async with self.opened(tmp_path) as transport:
            gone = {json.loads(delivery.body)["id"] for delivery in had[:2]}
            wanted = {each.id for each in sent} - gone
            assert {each.id for each in await self.drained(transport, wanted)} == wanted

    def _children(self, folder: Path) -> Children:
        return Children.of(self, folder)


async def _send_until_taken(transport: Transport, envelopes: list[Envelope]) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                assert await transport.send(envelopes) == []
                return
            except TransportError:
                await asyncio.sleep(0.1)
