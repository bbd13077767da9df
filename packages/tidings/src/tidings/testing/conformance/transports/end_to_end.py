"""Suite: relay → transport → landing of another service; its effects come once, whatever is killed on the way."""

# ruff: noqa: D102 - the names of the tests say what they do

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tidings.errors import TransportError
from tidings.points import watch
from tidings.service import Service
from tidings.testing.conformance.transports.children import Children
from tidings.testing.conformance.transports.opening import SHORT_LEASE, TransportOpening, real_world
from tidings.testing.conformance.transports.talking import Told, listener, teller
from tidings.transport import Transport

EVENTS = 40
ON_THE_WAY = ("relay.sent", "landing.before_commit", "landing.before_acknowledge")
"""Sent but not stepped; admitted but not committed; committed but not acknowledged."""


class EndToEndSuite(TransportOpening):
    """Part of TransportSuite."""

    async def test_effects_come_once_when_every_step_fails_now_and_then(self, tmp_path: Path) -> None:
        self.lease = SHORT_LEASE
        reached: Counter[str] = Counter()

        def fail(point: str) -> None:
            reached[point] += 1
            if point in ON_THE_WAY and reached[point] <= 2:
                raise TransportError("The suite lets this step fail.")

        with _watched(fail):
            async with self._teller(tmp_path) as tells, self._listener(tmp_path) as listens:
                for number in range(EVENTS):
                    await tells.publish(Told(account=f"a{number % 4}", number=number))
                await self._all_heard(listens, lambda: all(reached[point] > 2 for point in ON_THE_WAY))

    async def test_effects_come_once_when_relay_and_landing_are_killed(self, tmp_path: Path) -> None:
        self.lease = SHORT_LEASE
        async with Children.of(self, tmp_path) as children:
            for point, service, count in zip(ON_THE_WAY, ("tell", "listen", "listen"), (EVENTS, 0, 0), strict=True):
                if service == "listen":
                    await self._relayed(tmp_path)
                url = self._out(tmp_path) if service == "tell" else self._in(tmp_path)
                child = await children.start(
                    "talk", url, service=service, store=str(tmp_path), die_at=point, count=count
                )
                await child.killed_itself()
            async with self._listener(tmp_path) as listens:
                await self._all_heard(listens)

    async def _relayed(self, folder: Path) -> None:
        """Publish what the killed teller did not come to, and run its relay until everything is sent."""
        async with self._teller(folder) as tells:
            said = tells.store.reading
            published = len(await said.recent(0, 2 * EVENTS))
            for number in range(published, EVENTS):
                await tells.publish(Told(account=f"a{number % 4}", number=number))
            deadline = self._deadline(2)
            while (await said.pending("suite-teller:relay", None))[0]:
                assert asyncio.get_running_loop().time() < deadline, "the relay did not send everything"
                await asyncio.sleep(0.05)

    def _deadline(self, times: int) -> float:
        return asyncio.get_running_loop().time() + times * self.patience

    async def _all_heard(self, listens: Service, done: Callable[[], bool] = lambda: True) -> None:
        """Wait until everything was heard, then whether more comes; each once, and in order where that is claimed."""
        assert listens.transport is not None
        deadline = self._deadline(3)
        while await listens.fetch_value("SELECT count(*) FROM heard") < EVENTS or not done():
            assert asyncio.get_running_loop().time() < deadline, await _told(listens)
            await asyncio.sleep(0.05)
        await asyncio.sleep(2 * self.quiet)
        rows = await listens.fetch_all("SELECT account, number FROM heard ORDER BY id")
        numbers = [row["number"] for row in rows]
        assert sorted(numbers) == list(range(EVENTS)), await _told(listens)
        if listens.transport.capabilities.ordered_by_key:
            _in_order([(row["account"], row["number"]) for row in rows])

    def _teller(self, folder: Path) -> Service:
        return teller(folder, self._made(self._out(folder)))

    def _listener(self, folder: Path) -> Service:
        return listener(folder, self._made(self._in(folder)))

    def _out(self, folder: Path) -> str:
        return self.url(folder, self.queue, f"{self.queue}-back")

    def _in(self, folder: Path) -> str:
        return self.url(folder, f"{self.queue}-back", self.queue)

    def _made(self, url: str) -> Transport:
        return type(self).open_transport(url, real_world())


@contextmanager
def _watched(visit: Callable[[str], None]) -> Iterator[None]:
    watch(visit)
    try:
        yield
    finally:
        watch(None)


async def _told(listens: Service) -> str:
    rows = await listens.fetch_all("SELECT number FROM heard ORDER BY id")
    return f"of {EVENTS} events these were heard: {[row['number'] for row in rows]}"


def _in_order(heard: Sequence[tuple[str, int]]) -> None:
    for account in {one for one, _ in heard}:
        numbers = [number for one, number in heard if one == account]
        assert numbers == sorted(numbers), f"the events of {account} were heard in the order {numbers}"
