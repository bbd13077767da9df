"""Suite: what is not settled comes again, what is settled does not, and a late receipt settles nothing of others."""

# ruff: noqa: D102 - the names of the tests say what they do

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tidings.testing.conformance.samples import envelope
from tidings.testing.conformance.transports.opening import SHORT_LEASE, TransportOpening, claimed, ids
from tidings.transport import Delivery, Receiver, Transport

LATE = ("settle", "give_back", "extend")


class SettlingSuite(TransportOpening):
    """Part of TransportSuite."""

    async def test_what_was_not_settled_comes_again_after_a_close(self, tmp_path: Path) -> None:
        self.lease = SHORT_LEASE
        sent = [envelope(f"e{number}") for number in range(6)]
        async with self.opened(tmp_path) as transport:
            await self.send(transport, sent)
            first = await self.received(transport, 6, settle=False)
            await transport.settle(first[:2])
        async with self.opened(tmp_path) as transport:
            found = await self.drained(transport, ids(first[2:]))
        assert {each.id for each in found} == set(ids(first[2:])), "what was settled came again"

    async def test_settling_one_settles_no_other(self, tmp_path: Path) -> None:
        self.lease = SHORT_LEASE
        async with self.opened(tmp_path) as transport:
            await self.send(transport, [envelope(f"e{number}") for number in range(5)])
            found = await self.received(transport, 5, settle=False)
            await transport.settle([found[4], found[2]])
        async with self.opened(tmp_path) as transport:
            again = await self.drained(transport, [ids([found[number]])[0] for number in (0, 1, 3)])
        assert len(again) == 3

    async def test_settling_twice_and_closing_twice_are_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as transport:
            await self.send(transport, [envelope("a"), envelope("b")])
            found = await self.received(transport, 2, settle=False)
            await transport.settle(found)
            await transport.settle(found)
            await transport.give_back(found)
            await self.nothing_comes(transport)
            await transport.close()

    async def test_what_is_given_back_comes_again_at_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as transport, self.opened(tmp_path) as other:
            await self.send(transport, [envelope("a"), envelope("b")])
            found = await self.received(transport, 2, settle=False)
            await transport.give_back(found)
            again = await self.received(other, 2)
            assert sorted(ids(again)) == ["a", "b"]
            await self.nothing_comes(transport)

    async def test_what_is_given_back_with_a_delay_never_comes_early(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as transport:
            claimed(transport, "max_delay")
            loop = asyncio.get_running_loop()
            delays = {"a": 1.5, "b": 0.4, "c": 1.0}
            await self.send(transport, [envelope(name) for name in delays])
            found = await self.received(transport, 3, settle=False)
            due = {}
            for delivery in found:
                (name,) = ids([delivery])
                due[name] = loop.time() + delays[name]
                await transport.give_back([delivery], delays[name])
            for _ in delays:
                (name,) = ids(await self.received(transport, 1))
                late = loop.time() - due.pop(name)
                assert late >= -0.001, f"{name} came {-late:.3f} s early"
                assert late < self.patience / 2
            assert not due, f"{sorted(due)} did not come"

    async def test_a_receive_that_is_cancelled_has_received_nothing(self, tmp_path: Path) -> None:
        self.lease = SHORT_LEASE
        sent = [f"e{number}" for number in range(25)]
        settled: list[str] = []
        async with self.opened(tmp_path) as transport, self.opened(tmp_path, f"{self.queue}-back") as sender:
            for number, name in enumerate(sent):
                receiving = asyncio.create_task(transport.receive(3))
                await asyncio.sleep(0)
                await self.send(sender, [envelope(name)])
                await asyncio.sleep(0.0003 * number)
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
                if not receiving.cancelled():
                    await transport.settle(receiving.result())
                    settled += ids(receiving.result())
            found = await self.drained(transport, set(sent) - set(settled))
        assert {each.id for each in found} | set(settled) == set(sent)

    async def test_a_lease_that_ends_lets_others_have_the_message(self, tmp_path: Path) -> None:
        async with self._leasing(tmp_path) as (transport, other, lease):
            began = asyncio.get_running_loop().time()
            await self.received(transport, 1, settle=False)
            await self.received(other, 1)
            passed = asyncio.get_running_loop().time() - began
            assert passed >= lease - 0.05, f"it came to another after {passed:.2f} s of a lease of {lease:g} s"
            await self.nothing_comes(transport)

    async def test_a_lease_that_is_extended_keeps_the_message(self, tmp_path: Path) -> None:
        async with self._leasing(tmp_path) as (transport, other, lease):
            mine = await self.received(transport, 1, settle=False)
            waiting = asyncio.create_task(other.receive(1))
            for _ in range(10):
                await asyncio.sleep(lease / 4)
                await transport.extend(mine)
            came = waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert not came, "it came to another although its lease was extended"
            await transport.settle(mine)
            await self.nothing_comes(other, lease + self.quiet)

    @pytest.mark.parametrize("act", LATE)
    async def test_what_has_come_to_another_stays_theirs(self, tmp_path: Path, act: str) -> None:
        async with self._leasing(tmp_path) as (transport, other, lease):
            mine = await self.received(transport, 1, settle=False)
            theirs = await self.received(other, 1, settle=False)
            late: Callable[[Sequence[Delivery]], Awaitable[None]] = getattr(transport, act)
            await late(mine)
            await self.nothing_comes(transport, min(self.quiet, lease / 2))
            await other.give_back(theirs)
            again = await self.received(transport, 1)
            assert ids(again) == ids(theirs), f"a late {act} has settled what another had received"

    async def test_what_the_broker_gives_up_is_among_its_dead(self, tmp_path: Path) -> None:
        url = self.dead_url(tmp_path, self.queue, f"{self.queue}-dead")
        async with self.opened_at(url) as transport:
            dead = transport.dead
            assert dead is not None
            await self.send(transport, [envelope("bad", key="a"), envelope("good", key="b")])
            for number in (2, 1):
                for delivery in await self.received(transport, number, settle=False):
                    await (transport.give_back if ids([delivery]) == ["bad"] else transport.settle)([delivery])
            await self.nothing_comes(transport)
            first = await self._dead(dead)
            assert first.headers["reason"]
            await dead.give_back([first])
            again = await self._dead(dead)
            assert again.headers["message"] == first.headers["message"], "one sending has two names"
            await dead.settle([again])
            await self.nothing_comes(dead)
            assert await transport.send([envelope("bad", key="a")], again=True) == []
            assert ids(await self.received(transport, 1)) == ["bad"], "what is sent again is not taken for given up"

    async def _dead(self, dead: Receiver) -> Delivery:
        try:
            async with asyncio.timeout(self.patience):
                (delivery,) = await dead.receive(10)
        except TimeoutError:
            raise AssertionError(f"what was given up did not come within {self.patience:g} s") from None
        assert ids([delivery]) == ["bad"]
        return delivery

    def _leasing(self, folder: Path) -> "_Leasing":
        self.lease = SHORT_LEASE
        return _Leasing(self, folder)


class _Leasing:
    """Two transports on one queue with one message, and their lease; skips where there are none."""

    def __init__(self, suite: SettlingSuite, folder: Path) -> None:
        self._suite = suite
        self._one, self._two = suite.opened(folder), suite.opened(folder)

    async def __aenter__(self) -> tuple[Transport, Transport, float]:
        one = await self._one.__aenter__()
        try:
            claimed(one, "lease_seconds")
            await self._suite.send(one, [envelope("leased")])
        except BaseException:
            await self._one.__aexit__(None, None, None)
            raise
        return one, await self._two.__aenter__(), one.capabilities.lease_seconds or 0.0

    async def __aexit__(self, *_: object) -> None:
        await self._two.__aexit__(None, None, None)
        await self._one.__aexit__(None, None, None)
