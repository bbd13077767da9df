"""Suite: order by key, where claimed: with several receivers, after giving back, after a lease or a process ends."""

# ruff: noqa: D102 - the names of the tests say what they do

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tidings.events import Envelope, envelope_from_json
from tidings.testing.conformance.samples import envelope, sized
from tidings.testing.conformance.transports.opening import SHORT_LEASE, TransportOpening, claimed, ids
from tidings.transport import Transport

KEYS, EVENTS = 8, 15


class OrderSuite(TransportOpening):
    """Part of TransportSuite."""

    async def test_several_receivers_settle_each_key_in_its_order(self, tmp_path: Path) -> None:
        """A receiver is slow between receiving and settling: nothing of its keys may be settled meanwhile."""
        sent = [envelope(f"{key}-{n}", key=f"key {key}") for n in range(EVENTS) for key in range(KEYS)]
        settled: list[Envelope] = []
        async with self._ordered(tmp_path) as one, self.opened(tmp_path) as two, self.opened(tmp_path) as three:

            async def take(transport: Transport, limit: int, pause: float) -> None:
                while True:
                    some = await transport.receive(limit)
                    await asyncio.sleep(pause)
                    settled.extend(envelope_from_json(delivery.body) for delivery in some)
                    await transport.settle(some)

            await self.send(one, sent)
            takers = [asyncio.create_task(take(*each)) for each in ((one, 3, 0.01), (two, 7, 0.0), (three, 1, 0.003))]
            deadline = asyncio.get_running_loop().time() + 2 * self.patience
            done, now = False, asyncio.get_running_loop().time
            while not done and now() < deadline:
                await asyncio.sleep(0.02)
                done = len({each.id for each in settled}) == len(sent)
            for taker in takers:
                taker.cancel()
            await asyncio.gather(*takers, return_exceptions=True)
        in_order(settled, sent)

    async def test_what_follows_a_refused_one_of_its_key_is_refused_too(self, tmp_path: Path) -> None:
        async with self._ordered(tmp_path) as transport:
            large = sized("a2", transport.capabilities.max_bytes + 1, key="a")
            batch = [envelope("a1", key="a"), large, envelope("a3", key="a"), envelope("b1", key="b"), envelope("n")]
            refused = [(one.event_id, one.retryable) for one in await transport.send(batch)]
            assert sorted(refused) == [("a2", False), ("a3", True)]
            assert {each.id for each in await self.drained(transport, ["a1", "b1", "n"])} == {"a1", "b1", "n"}
            assert await transport.send(batch[2:3]) == []  # in a call of its own it is taken: its sender decides
            await self.drained(transport, ["a3"])

    async def test_what_is_received_keeps_its_key_back_and_no_other(self, tmp_path: Path) -> None:
        async with self._ordered(tmp_path) as one, self.opened(tmp_path) as two:
            await self.send(one, [envelope("a1", key="a")])
            first = await self.received(one, 1, settle=False)
            await self.send(one, [envelope("a2", key="a"), envelope("b1", key="b"), envelope("n")])
            assert sorted(ids(await self.received(two, 2))) == ["b1", "n"]
            await self.nothing_comes(two)
            await one.settle(first)
            assert ids(await self.received(two, 1)) == ["a2"]

    async def test_what_is_given_back_comes_again_before_what_follows_it(self, tmp_path: Path) -> None:
        await self._comes_again_in_order(tmp_path, 0.0)

    async def test_what_is_given_back_with_a_delay_comes_again_before_what_follows_it(self, tmp_path: Path) -> None:
        async with self._ordered(tmp_path) as transport:
            claimed(transport, "max_delay")
        await self._comes_again_in_order(tmp_path, 0.7)

    async def _comes_again_in_order(self, folder: Path, delay: float) -> None:
        sent = [envelope(f"a{number}", key="a") for number in range(6)]
        async with self._ordered(folder) as one, self.opened(folder) as two:
            await self.send(one, sent[:3])
            await one.give_back(await self.received(one, 3, settle=False), delay)
            await self.send(one, [*sent[3:], envelope("b", key="b")])
            in_order(await self.drained(two, [*(each.id for each in sent), "b"]), sent)

    async def test_after_a_close_the_order_is_what_it_was(self, tmp_path: Path) -> None:
        self.lease = SHORT_LEASE
        sent = [envelope(f"a{number}", key="a") for number in range(8)]
        async with self._ordered(tmp_path) as one:
            await self.send(one, sent)
            some = await self.received(one, 5, settle=False)
            await one.settle(some[:2])
        async with self.opened(tmp_path) as two:
            in_order(await self.drained(two, [each.id for each in sent[2:]]), sent[2:])

    async def test_after_a_lease_ended_the_order_is_what_it_was(self, tmp_path: Path) -> None:
        self.lease = SHORT_LEASE
        sent = [envelope(f"a{number}", key="a") for number in range(8)]
        async with self._ordered(tmp_path) as one, self.opened(tmp_path) as two:
            claimed(one, "lease_seconds")
            await self.send(one, sent)
            await self.received(one, 3, limit=3, settle=False)
            in_order(await self.drained(two, [each.id for each in sent]), sent)

    @asynccontextmanager
    async def _ordered(self, folder: Path) -> AsyncIterator[Transport]:
        async with self.opened(folder) as transport:
            claimed(transport, "ordered_by_key")
            yield transport


def in_order(found: Sequence[Envelope], sent: Sequence[Envelope]) -> None:
    """Check that what was sent came, each key in its order; what comes again may, as long as nothing is overtaken."""
    place = {(each.source, each.id): number for number, each in enumerate(sent)}
    reached: dict[tuple[str, str | None], int] = {}
    for each in found:
        at, key = place.get((each.source, each.id)), (each.source, each.key)
        if at is None:
            continue
        waiting = [n for n, one in enumerate(sent[:at]) if (one.source, one.key) == key and n > reached.get(key, -1)]
        assert not waiting, f"{each.id} came before {sent[waiting[0]].id}: {[one.id for one in found]}"
        reached[key] = max(at, reached.get(key, -1))
    assert {(each.source, each.id) for each in found} >= set(place), "not everything came"
