"""A function that stood still for longer than S3 keeps a connection: it works on, in the same process, at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from cloud import Cloud, Flow


class Between:
    """A network between the function and S3. Its connections can be closed, or lost without a word."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._every: list[asyncio.StreamWriter] = []
        self._lost: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    async def start(self) -> int:
        """Return the port on which it listens."""
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._pairs.append((writer, back))
        self._every += (writer, back)
        for source, target in ((reader, back), (there, writer)):
            self._tasks.add(asyncio.create_task(self._carry(source, target)))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                if target not in self._lost:
                    target.write(data)
                    await target.drain()
        if target not in self._lost:
            target.close()

    def end_all(self, how: str) -> int:
        """End every connection; returns how many there were."""
        ended, self._pairs = self._pairs, []
        for pair in ended:
            if how == "closed":
                pair[0].close()
            else:
                self._lost.update(pair)
        return len(ended)

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._every:
            writer.transport.abort()
        await asyncio.gather(*[writer.wait_closed() for writer in self._every], return_exceptions=True)


@pytest.fixture
async def between(aws_endpoint: str) -> AsyncIterator[tuple[Between, str]]:
    made = Between(int(aws_endpoint.rpartition(":")[2]))
    port = await made.start()
    yield made, f"http://127.0.0.1:{port}"
    await made.stop()


@pytest.mark.parametrize(("how", "orders"), [("closed", 5), ("lost", 1)])
async def test_sockets_of_s3_that_ended_while_the_process_was_frozen_cost_nothing_but_time(
    flow: Flow, cloud: Cloud, between: tuple[Between, str], how: str, orders: int
) -> None:
    """One that is lost costs the time that an answer may take, 5 s, and five tries find four of them."""
    network, endpoint = between
    queue = await cloud.queue(visibility=20)
    await queue.order(*[f"o{number}" for number in range(orders)])  # several at a time: as many connections
    outcomes = cloud.outcomes.replace(cloud.endpoint, endpoint)
    async with flow.running(queue, seconds=20.0, outcomes=outcomes):
        await flow.until(lambda: len(flow.landed()) == orders)
        await flow.until(lambda: all(one.usable for one in flow.function.environments))
        assert network.end_all(how) >= min(orders, 3), "the function did not keep its connections"
        await queue.order("after")
        await flow.until(lambda: len(flow.landed()) == orders + 1)
        last = flow.source.results[-1][1]
    assert (last.error_type, last.cold) == (None, False), "it should have been the same process"
    assert flow.runs("after") == 1
    assert len(await cloud.decided()) == orders + 1
