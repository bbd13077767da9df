"""The bullmq:// transport on a real Redis: delivery, leases, order, delays, durability, outages."""

import asyncio
import logging
import statistics
from pathlib import Path

import pytest
from msgspec.structs import replace
from node_bullmq import Run
from redis_server import RedisServer
from sending import Opening, envelope, ids, none_within, now_ms, received

from tidings.errors import ServiceError, TransportError
from tidings.events import envelope_from_json

UNICODE = {"text": 'Grüße, 世界 🎉 \u2028 \\ " end', "empty": "", "deep": [[[{"a": None}]]]}


async def test_what_is_sent_is_received_byte_for_byte(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    sent = [
        envelope("a", UNICODE, key="k", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
                 tracestate="x=1"),
        envelope("b"),
        envelope("c", {"large": "ü" * 500_000}),
    ]  # fmt: skip
    assert await transport.send(sent) == []
    found = await received(transport, 3)
    assert [envelope_from_json(delivery.body) for delivery in found] == sent
    assert found[0].headers == {"name": "shop.order.placed", "traceparent": sent[0].traceparent, "tracestate": "x=1"}
    assert found[1].headers == {"name": "shop.order.placed"}


async def test_large_events_go_out_in_pieces(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    sent = [envelope(f"e{number}", {"text": "x" * 900_000}) for number in range(12)]
    assert await transport.send(sent) == []
    assert [envelope_from_json(delivery.body) for delivery in await received(transport, 12)] == sent


async def test_what_cannot_be_sent_is_refused_alone(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    large = envelope("large", {"text": "x" * (transport.capabilities.max_bytes + 1)})
    refused = await transport.send([envelope("a"), large, envelope("17"), envelope("wait"), envelope("z")])
    assert [(refusal.event_id, refusal.retryable) for refusal in refused] == [
        ("large", False), ("17", False), ("wait", False)
    ]  # fmt: skip
    assert ids(await received(transport, 2)) == ["a", "z"]


async def test_a_transport_without_a_queue_to_send_to_refuses(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(inward="q"))
    (refused,) = await transport.send([envelope("a")])
    assert "add queue=NAME" in refused.reason


async def test_one_event_sent_twice_is_one_job(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    for _ in range(2):
        await transport.send([envelope("a"), envelope("b")])
    assert ids(await received(transport, 2)) == ["a", "b"]
    await transport.send([envelope("a")])  # its completed job is still kept
    await none_within(transport, 0.3)


async def test_many_come_in_the_order_they_were_sent(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    names = [f"e{number}" for number in range(1000)]
    for start in range(0, 1000, 100):
        await transport.send([envelope(name) for name in names[start : start + 100]])
    assert ids(await received(transport, 1000)) == names
    assert redis.call("LLEN", "bull:q:active") == ":0"


async def test_small_batches_do_not_stay_small(redis: RedisServer, opened: Opening) -> None:
    """The job fetched with a completion must not be all that the next call brings."""
    transport = await opened(redis.url(queue="q", inward="q"))
    await transport.send([envelope(f"e{number}") for number in range(50)])
    await transport.settle(await transport.receive(1))
    assert len(await transport.receive(40)) == 40


async def test_what_is_not_settled_comes_again_at_once_after_a_close_in_its_order(
    redis: RedisServer, opened: Opening
) -> None:
    first = await opened(redis.url(queue="q", inward="q"))
    await first.send([envelope(f"e{number}") for number in range(10)])
    some = await first.receive(4)
    await first.settle(some[:2])  # takes two more ahead
    await first.close()
    second = await opened(redis.url(inward="q"))
    assert ids(await received(second, 8, 2.0)) == [f"e{number}" for number in range(2, 10)]


async def test_a_job_taken_for_a_caller_who_has_gone_is_given_back(redis: RedisServer, opened: Opening) -> None:
    first = await opened(redis.url(queue="q", inward="q"))
    await first.send([envelope(f"e{number}") for number in range(60)])
    settled = 0
    for attempt in range(60):
        receiving = asyncio.ensure_future(first.receive(1))
        for _ in range(attempt % 12):  # gone before, while and after Redis hands the job out
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        if not receiving.cancelled():
            await first.settle(receiving.result())
            settled += 1
    await first.close()
    assert redis.call("LLEN", "bull:q:active") == ":0"
    assert redis.call("LLEN", "bull:q:wait") == f":{60 - settled}"


async def test_a_lease_that_is_extended_keeps_its_message(redis: RedisServer, opened: Opening) -> None:
    url = redis.url(queue="q", inward="q", lock="0.6", stalled="0.2")
    slow, other = await opened(url), await opened(url)
    await slow.send([envelope("a")])
    held = await received(slow, 1, settle=False)
    for _ in range(10):
        await none_within(other, 0.3)
        await slow.extend(held)
    await slow.settle(held)
    assert redis.call("ZCARD", "bull:q:completed") == ":1"


async def test_what_was_taken_ahead_is_kept_without_being_asked(redis: RedisServer, opened: Opening) -> None:
    url = redis.url(queue="q", inward="q", lock="0.6", stalled="0.2")
    slow, other = await opened(url), await opened(url)
    await slow.send([envelope("a"), envelope("b")])
    await slow.settle(await slow.receive(1))
    await none_within(other, 2.5)
    assert ids(await received(slow, 1)) == ["b"]


async def test_a_lease_that_is_not_extended_ends_and_the_late_receiver_settles_nothing(
    redis: RedisServer, opened: Opening
) -> None:
    transport = await opened(redis.url(queue="q", inward="q", lock="0.2", stalled="0.2"))
    await transport.send([envelope("a")])
    (first,) = await transport.receive(10)
    (again,) = await received(transport, 1, 10.0, settle=False)
    await transport.settle([first])
    await transport.give_back([first])
    assert redis.call("LLEN", "bull:q:active") == ":1"
    await transport.settle([again])
    assert redis.call("ZCARD", "bull:q:completed") == ":1"


async def test_what_is_given_back_comes_again_at_once_and_in_order(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    await transport.send([envelope(name) for name in "abcd"])
    await transport.give_back(await received(transport, 3, settle=False))
    assert ids(await received(transport, 4, 2.0)) == list("abcd")


async def test_what_is_given_back_for_a_time_comes_when_it_is_over(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    await transport.send([envelope("a"), envelope("b")])
    late = []
    for delay in (0.05, 0.333, 1.2):
        began = now_ms()
        (first,) = await received(transport, 1, settle=False)
        await transport.give_back([first], delay)
        found = await received(transport, 2, settle=False)
        late.append(now_ms() - began - delay * 1000)
        await transport.give_back(found)
    assert min(late) >= 0
    assert max(late) < 200, late


async def test_one_id_of_two_services_is_two_events(redis: RedisServer, opened: Opening) -> None:
    """Each service chooses its ids; BullMQ knows only one job of an id."""
    transport = await opened(redis.url(queue="q", inward="q"))
    for _ in range(2):
        await transport.send([envelope("a"), replace(envelope("a"), source="other")])
    found = [envelope_from_json(delivery.body) for delivery in await received(transport, 2)]
    assert [(one.source, one.id) for one in found] == [("shop", "a"), ("other", "a")]
    await none_within(transport, 0.3)


async def test_delayed_jobs_come_at_their_millisecond_and_never_early(
    redis: RedisServer, opened: Opening, node: Run
) -> None:
    transport = await opened(redis.url(inward="q"))
    delays = [1500, 1730, 1777, 2000, 2345]
    jobs = [{"name": "n", "data": {}, "opts": {"delay": delay}} for delay in delays]
    due = [fact["due"] for fact in node("add", redis.port, "q", jobs=jobs).facts()]
    late = []
    for moment in due:
        await received(transport, 1)
        late.append(now_ms() - moment)
    assert min(late) >= 0
    assert statistics.median(late) < 40, late


async def test_waiting_longer_than_a_socket_timeout_is_no_error(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    waiting = asyncio.ensure_future(received(transport, 1))
    await asyncio.sleep(6.5)
    assert not waiting.done()
    began = now_ms()
    await transport.send([envelope("a")])
    assert ids(await waiting) == ["a"]
    assert now_ms() - began < 500


async def test_only_so_many_completed_jobs_stay(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(queue="q", inward="q", keep="5"))
    await transport.send([envelope(f"e{number}") for number in range(20)])
    await received(transport, 20)
    assert redis.call("ZCARD", "bull:q:completed") == ":5"
    assert redis.call("EXISTS", "bull:q:e0") == ":0"


@pytest.mark.parametrize(("options", "words"), [
    (["--appendonly", "no", "--maxmemory-policy", "noeviction"], ["without AOF", "appendonly yes"]),
    (["--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"], ["allkeys-lru", "maxmemory-policy noeviction"]),
])  # fmt: skip
async def test_a_redis_that_may_lose_jobs_is_told_of_or_refused(
    tmp_path: Path, opened: Opening, caplog: pytest.LogCaptureFixture, options: list[str], words: list[str]
) -> None:
    server = RedisServer(tmp_path / "redis", *options).start()
    try:
        with caplog.at_level(logging.WARNING, "tidings"):
            await opened(server.url(queue="q", durable="ignore"))
            assert caplog.text == ""
            await opened(server.url(queue="q"))
        assert [word for word in words if word not in caplog.text] == []
        with pytest.raises(ServiceError, match=words[0]):
            await opened(server.url(queue="q", durable="require"))
    finally:
        server.kill()


async def test_a_durable_redis_is_not_spoken_of(
    redis: RedisServer, opened: Opening, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tidings"):
        await opened(redis.url(queue="q", durable="require"))
    assert caplog.text == ""


async def test_a_redis_that_is_away_is_a_transport_error_and_comes_back_with_its_jobs(
    own_redis: RedisServer, opened: Opening
) -> None:
    transport = await opened(own_redis.url(queue="q", inward="q"))
    await transport.send([envelope("a")])
    waiting = asyncio.ensure_future(received(transport, 1, settle=False))
    held = await waiting
    waiting = asyncio.ensure_future(received(transport, 1))
    await asyncio.sleep(0.2)
    own_redis.kill()
    with pytest.raises(TransportError, match=r"Redis at .* failed"):
        await waiting
    with pytest.raises(TransportError):
        await transport.send([envelope("b")])
    own_redis.start()
    await transport.send([envelope("b")])
    assert ids(await received(transport, 1)) == ["b"]
    await transport.settle(held)
    assert own_redis.call("ZCARD", "bull:q:completed") == ":2"


async def test_a_redis_that_is_not_there_is_told_of_at_the_start(own_redis: RedisServer, opened: Opening) -> None:
    own_redis.kill()
    with pytest.raises(TransportError, match="check that it runs"):
        await opened(own_redis.url(queue="q"))


async def test_scripts_that_redis_forgot_are_loaded_again(redis: RedisServer, opened: Opening) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    await transport.send([envelope("a")])
    redis.call("SCRIPT", "FLUSH")
    with pytest.raises(TransportError):
        await transport.send([envelope("b")])
    await transport.send([envelope("b")])
    assert redis.call("LLEN", "bull:q:wait") == ":2"


async def test_a_redis_out_of_memory_stops_sending_and_loses_nothing(own_redis: RedisServer, opened: Opening) -> None:
    transport = await opened(own_redis.url(queue="q", inward="q"))
    await transport.send([envelope("a")])
    own_redis.call("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(TransportError, match="out of memory"):
        await transport.send([envelope(f"e{number}", {"text": "x" * 1000}) for number in range(3)])
    own_redis.call("CONFIG", "SET", "maxmemory", "0")
    await transport.send([envelope(f"e{number}") for number in range(3)])
    assert ids(await received(transport, 4)) == ["a", "e0", "e1", "e2"]


class TestCluster:
    """Two nodes that share the slots: whichever is asked, the keys of a prefix in braces are found."""

    @pytest.fixture
    async def nodes(self, tmp_path: Path) -> list[RedisServer]:
        options = ("--appendonly", "yes", "--cluster-enabled", "yes")
        return [RedisServer(tmp_path / name, *options, "--cluster-announce-ip", "127.0.0.1").start() for name in "ab"]

    @pytest.fixture(autouse=True)
    async def cluster(self, nodes: list[RedisServer]) -> object:
        first, second = nodes
        first.call("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        second.call("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        first.call("CLUSTER", "MEET", "127.0.0.1", str(second.port))
        async with asyncio.timeout(30):
            while any(self.state(one) != "cluster_state:ok" for one in nodes):  # noqa: ASYNC110  only Redis knows
                await asyncio.sleep(0.1)
        yield
        for one in nodes:
            one.kill()

    def state(self, server: RedisServer) -> str:
        return server.call("CLUSTER", "INFO")

    async def test_a_prefix_in_braces_works_from_either_node(self, nodes: list[RedisServer], opened: Opening) -> None:
        for number, server in enumerate(nodes):
            transport = await opened(server.url(queue="q", inward="q", prefix="{bull}"))
            await transport.send([envelope(f"e{number}{letter}") for letter in "abc"])
            assert ids(await received(transport, 3)) == [f"e{number}{letter}" for letter in "abc"]

    async def test_one_without_says_what_to_do(self, nodes: list[RedisServer], opened: Opening) -> None:
        transport = await opened(nodes[0].url(queue="q"))
        with pytest.raises(TransportError, match=r"prefix=\{bull\}"):
            await transport.send([envelope("a")])
