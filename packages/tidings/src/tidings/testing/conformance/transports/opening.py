"""What every part of the suite can do: open transports on queues of the test's own, and wait for messages."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest

from tidings.errors import TransportError
from tidings.events import Envelope, envelope_from_json
from tidings.service import system_clock, uuid7_ids
from tidings.transport import Delivery, Receiver, Transport
from tidings.world import World

SHORT_LEASE = 1.0
"""Seconds of the leases in tests that let them end."""


class TransportOpening:
    """What a subclass says of its transport. The rest is for the tests."""

    open_transport: ClassVar[Callable[[str, World], Transport]]
    """The backend's own function, as `staticmethod(open_transport)`. Other processes import it by its name."""

    crosses_processes: ClassVar[bool] = True
    """False if the queues end with the process: nothing can be killed and looked at from outside then."""

    patience: ClassVar[float] = 10.0
    """Seconds within which what must come comes, also after a crash."""

    quiet: ClassVar[float] = 0.4
    """Seconds after which what has not come does not come."""

    duplicates: ClassVar[float] = 0.0
    """Share of the messages that may come twice although nothing failed."""

    lease: float = 30.0
    """Seconds of the leases that a test wants; put it into the URL where there is a place for it."""

    def url(self, folder: Path, sends: str, receives: str) -> str:
        """Return the URL of a transport between two queues (their names are new), which may be one."""
        raise NotImplementedError

    def fan_out_url(self, folder: Path, sends: Sequence[str], receives: str) -> str:
        """Return the URL of a transport that sends to several queues. Needed where `fan_out` is claimed."""
        raise NotImplementedError

    def dead_url(self, folder: Path, sends: str, dead: str) -> str:
        """Return the URL of a transport that sends to a queue and receives from it, and drains another one, to which
        the broker gives up what was received twice and not settled."""
        pytest.skip("not claimed: dead letters of the broker")

    async def restart(self) -> None:
        """Kill the broker and start it again."""
        pytest.skip("not claimed: restart of the broker")

    @cached_property
    def queue(self) -> str:
        """The name of a queue of this test's own."""
        return f"suite-{secrets.token_hex(5)}"

    @asynccontextmanager
    async def opened(self, folder: Path, receives: str = "", *, sends: str = "") -> AsyncIterator[Transport]:
        """Open a transport on the test's queue, or between others."""
        async with self.opened_at(self.url(folder, sends or self.queue, receives or self.queue)) as transport:
            yield transport

    @asynccontextmanager
    async def opened_at(self, url: str) -> AsyncIterator[Transport]:
        """Open the transport of a URL."""
        transport = type(self).open_transport(url, real_world())
        await transport.open()
        try:
            yield transport
        finally:
            await transport.close()

    async def send(self, transport: Transport, envelopes: Sequence[Envelope]) -> None:
        """Send envelopes, as many at a time as may be; none is refused."""
        size = transport.capabilities.max_batch
        for start in range(0, len(envelopes), size):
            assert await transport.send(envelopes[start : start + size]) == []

    async def received(
        self, transport: Transport, number: int, *, limit: int = 10, settle: bool = True
    ) -> list[Delivery]:
        """Receive exactly so many; fails if they do not come in time."""
        found: list[Delivery] = []
        try:
            async with asyncio.timeout(self.patience):
                while len(found) < number:
                    some = await patiently(transport, min(limit, number - len(found)))
                    found += some
                    if settle:
                        await transport.settle(some)
        except TimeoutError:
            raise AssertionError(f"only {ids(found)} came within {self.patience:g} s, not {number} messages") from None
        return found

    async def nothing_comes(self, transport: Receiver, seconds: float | None = None) -> None:
        """Fail if anything comes within some seconds."""
        try:
            async with asyncio.timeout(self.quiet if seconds is None else seconds):
                some = await transport.receive(10)
        except TimeoutError:
            return
        raise AssertionError(f"{ids(some)} came, and nothing should have come")

    async def drained(self, transport: Transport, wanted: Iterable[str]) -> list[Envelope]:
        """Receive and settle until every wanted id has come and then nothing more; return what came, in its order."""
        found: list[Envelope] = []
        missing = set(wanted)
        deadline = asyncio.get_running_loop().time() + self.patience
        while True:
            now = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(deadline - now if missing else self.quiet):
                    some = await patiently(transport, 10)
            except TimeoutError:
                assert not missing, f"{sorted(missing)} did not come within {self.patience:g} s"
                return found
            await transport.settle(some)
            found += [envelope_from_json(delivery.body) for delivery in some]
            missing -= {envelope.id for envelope in found}


def real_world() -> World:
    """Return the world outside."""
    return World(system_clock, Random(), uuid7_ids)


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    """Return the ids of the events in some messages."""
    return [envelope_from_json(delivery.body).id for delivery in deliveries]


def claimed(transport: Transport, capability: str) -> None:
    """Skip the test if a transport does not claim a capability."""
    if not getattr(transport.capabilities, capability):
        pytest.skip(f"not claimed: {capability}")


async def patiently(transport: Transport, limit: int) -> list[Delivery]:
    """Receive, and try again while the broker cannot be reached."""
    while True:
        try:
            return await transport.receive(limit)
        except TransportError:
            await asyncio.sleep(0.1)
