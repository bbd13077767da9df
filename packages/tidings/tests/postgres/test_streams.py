"""What only Postgres can be put through: who waits for a stream that a transaction has, and who does not."""

import asyncio

from tidings.backends.postgres import open_store
from tidings.testing.conformance.samples import still_world
from tidings.testing.conformance.streams import appending, versions


async def test_only_who_wants_a_stream_waits_for_the_transaction_that_has_it(postgres_url: str) -> None:
    store = open_store(postgres_url, still_world())
    await store.open(migrate=True)
    await store.append(appending("held", 0, "first"))
    async with store.transaction() as s:
        assert await s.move_head("held", 1, 1) == 2
        waiting = [asyncio.create_task(store.append(appending("held", at, f"w{at}"))) for at in (1, None)]
        async with asyncio.timeout(3):  # the transaction may last 10 s
            for turn in range(5):
                calls = [store.append(appending(f"free-{n}", turn, f"{turn}-{n}")) for n in range(4)]
                assert await asyncio.gather(*calls) == [turn + 1] * 4
            # Nor does the log's fence: what is committed beside it can be read.
            rows, _ = await store.reading.events_of_streams(0, "free-", 99, archived=False)
            assert len(rows) == 20
        assert not any(task.done() for task in waiting)
        await s.append(appending("held", 1, "second").placed(2))
    assert await asyncio.gather(*waiting) == [None, 3]
    assert await versions(store, "held") == [1, 2, 3]
    await store.close()


async def test_groups_that_want_the_same_streams_do_not_wait_for_each_other_in_a_ring(postgres_url: str) -> None:
    stores = [open_store(postgres_url, still_world()) for _ in range(3)]
    for store in stores:
        await store.open(migrate=True)
    order = [f"s{n}" for n in range(6)]
    calls = [
        store.append(appending(stream, None, f"{number}-{turn}-{stream}"))
        for turn in range(8)
        for number, store in enumerate(stores)
        for stream in (order if (turn + number) % 2 else reversed(order))
    ]
    async with asyncio.timeout(20):
        assert None not in await asyncio.gather(*calls)
    for stream in order:
        assert await versions(stores[0], stream) == list(range(1, 25))
    for store in stores:
        await store.close()
