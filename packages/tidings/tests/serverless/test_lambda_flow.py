"""SQS → a Lambda function in real processes → an outcome in S3 → BullMQ → a listener's table; faults on the way."""

import asyncio
from pathlib import Path

import pytest
from cloud import Cloud, Flow, orders
from labels import OrderPlaced

from tidings import Service
from tidings.points import STORELESS_POINTS


async def test_every_order_that_a_relay_sends_gets_one_label(flow: Flow, cloud: Cloud, tmp_path: Path) -> None:
    queue = await cloud.queue(visibility=30)
    wanted = [f"o{number:02}" for number in range(30)]
    url = f"sqs://{queue.url.rpartition('/')[2]}?region=us-east-1&endpoint={cloud.endpoint}"
    seller = Service("seller", store=f"sqlite:///{tmp_path / 'seller.db'}", transport=url)
    seller.register(OrderPlaced)
    async with seller, flow.running(queue, seconds=20.0):
        for order in wanted:
            await seller.publish(OrderPlaced(order_id=order))
        await flow.until(lambda: len(flow.landed()) >= len(wanted))
        await flow.until_empty(queue)
    assert [order for order, _ in flow.landed()] == wanted
    decided = {one["events"][0]["data"]["order_id"]: one["events"][0]["data"]["label"] for one in await cloud.decided()}
    assert decided == dict(flow.landed())


@pytest.mark.parametrize("point", STORELESS_POINTS)
async def test_a_function_killed_in_the_middle_decides_once(flow: Flow, cloud: Cloud, point: str) -> None:
    queue = await cloud.queue(receives=10)
    wanted = ["o1", "o2", "o3", "victim"]
    await queue.order(*wanted)
    async with flow.running(queue, kill_at=point):
        await flow.until_empty(queue)
        await flow.until(lambda: len(flow.landed()) >= len(wanted))
        assert any(result.error_type == "Runtime.ExitError" for _, result in flow.source.results)
        await asyncio.sleep(0.3)  # a second effect would be here by now
    assert [order for order, _ in flow.landed()] == wanted
    decided = {one["id"]: one["events"][0]["data"] for one in await cloud.decided()}
    assert {order: data["label"] for order, data in decided.items()} == {f"e-{o}": label for o, label in flow.landed()}
    by_the_killed_one = decided["e-victim"]["pid"] == flow.killed()
    assert by_the_killed_one is (point != "outcome.decided"), "what is decided stays, what is not is decided again"


async def test_what_always_fails_or_takes_too_long_ends_in_the_dead_letter_queue_and_the_rest_flows(
    flow: Flow, cloud: Cloud
) -> None:
    queue = await cloud.queue()
    await queue.put("no event")
    await queue.order("poison", "slow", *(f"o{number}" for number in range(12)))
    async with flow.running(queue):
        await flow.until(lambda: len(flow.landed()) >= 12)
        await flow.until_empty(queue)
        assert not any(result.error_type for _, result in flow.source.results), "a handler should have been cut off"
    dead = sorted(await queue.dead())
    assert dead[0] == "no event"
    assert orders(dead[1:]) == ["poison", "slow"]
    assert [flow.runs("poison"), flow.runs("slow"), flow.runs("o1")] == [3, 3, 1]
    assert "poison 3" in "\n".join(flow.notes()), "attempts are what SQS has counted"


async def test_one_that_cannot_be_cut_off_is_killed_and_costs_only_itself(flow: Flow, cloud: Cloud) -> None:
    queue = await cloud.queue(visibility=4, receives=1)
    await queue.order("stuck", "o1", "o2", "o3")
    async with flow.running(queue, seconds=3.0, batch_size=1):
        await flow.until(lambda: len(flow.landed()) >= 3)
        await flow.until_empty(queue)
    ended = [result.error_type for _, result in flow.source.results if result.error_type]
    assert ended == ["Sandbox.Timedout"]
    assert orders(await queue.dead()) == ["stuck"]
    assert [order for order, _ in flow.landed()] == ["o1", "o2", "o3"]


async def test_copies_that_two_functions_handle_at_a_time_have_one_outcome(flow: Flow, cloud: Cloud) -> None:
    queue = await cloud.queue(visibility=10)
    await queue.order("warm1", "warm2")
    async with flow.running(queue, seconds=10.0, batch_size=1):
        await flow.until(lambda: len(flow.landed()) >= 2)
        await queue.order("twin", "twin")
        await flow.until_empty(queue)
        await flow.until(lambda: len(flow.landed()) >= 3)
        assert len(flow.function.environments) == 2
    assert flow.runs("twin") == 2, "they should have run beside each other"
    (event,) = [one["events"][0] for one in await cloud.decided() if one["id"] == "e-twin"]
    assert [label for order, label in flow.landed() if order == "twin"] == [event["data"]["label"]]
    assert flow.redis.call("HGET", f"bull:labels:{event['id']}", "name").endswith("printed")


async def test_a_fifo_queue_keeps_its_groups_in_order_through_failures(flow: Flow, cloud: Cloud) -> None:
    queue = await cloud.queue(visibility=3, fifo=True)
    for number in range(4):
        for group in "ab":
            await queue.order(f"{'flaky-' * (number == 1)}{group}{number}", group=group)
    async with flow.running(queue, seconds=2.0):
        await flow.until(lambda: len(flow.landed()) >= 8)
        await flow.until_empty(queue)
    handled = [line.split()[0] for line in flow.notes()]
    for group in "ab":
        assert [one for one in handled if group in one.removeprefix("flaky-")] == [
            f"{group}0", f"flaky-{group}1", f"flaky-{group}1", f"{group}2", f"{group}3"
        ]  # fmt: skip


async def test_connections_that_broke_while_the_process_stood_still_are_made_again(flow: Flow, cloud: Cloud) -> None:
    queue = await cloud.queue(visibility=10)
    async with flow.running(queue, seconds=10.0, concurrency=2):
        await queue.order("o1")
        await flow.until(lambda: len(flow.landed()) >= 1)
        flow.redis.kill()
        flow.redis.start()
        await queue.order("o2")
        await flow.until(lambda: len(flow.landed()) >= 2)
        cold = [result.cold for _, result in flow.source.results]
    assert cold == [True, False], "it should have been the same process"
    assert flow.runs("o2") == 1


async def test_a_function_that_does_not_load_leaves_the_messages_where_they_are(
    flow: Flow, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await cloud.queue(visibility=4)
    monkeypatch.setenv("BROKEN", "1")
    await queue.order("o1")
    async with flow.running(queue, seconds=1.0):
        await flow.until(lambda: len(flow.source.results) >= 1)
        assert flow.source.results[0][1].error_type == "Runtime.InitError"
        assert "a setting is missing" in str(flow.source.results[0][1].error)
    assert await queue.left() == 1
