"""Both ways with BullMQ's own library for Node: jobs, events, telemetry, and a SIGKILL of either in the middle."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from node_bullmq import Node, Run
from redis_server import RedisServer
from sending import Opening, envelope, ids, received

from tidings.events import envelope_from_json, envelope_to_json

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
UNICODE = {"text": 'Grüße, 世界 🎉 \u2028 \\ "', "nothing": None, "large": "é" * 300_000}
SHORT = {"lock": "1", "stalled": "0.5"}


@contextmanager
def consumer(url: str, *hold: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that receives; it is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("consumer.py")), url, *hold], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def cloud_events(*names: str, **opts: Any) -> list[dict[str, Any]]:
    """Jobs for Node to add, each with a CloudEvent as its data."""
    documents = {name: json.loads(envelope_to_json(envelope(name, UNICODE, key="k"))) for name in names}
    return [{"name": "n", "data": documents[name], "opts": {"jobId": name, **opts}} for name in names]


def events_of(listener: Node, job_id: str, last: str) -> list[str]:
    """The events of a job until (and with) `last`."""
    found = []
    for fact in listener.facts():
        if fact.get("jobId") == job_id:
            found.append(fact["event"])
            if fact["event"] == last:
                break
    return found


async def test_a_node_worker_gets_what_tidings_sends(redis: RedisServer, opened: Opening, node: Run) -> None:
    listener = node("listen", redis.port, "q")
    listener.fact("ready")
    transport = await opened(redis.url(queue="q", attempts="3"))
    sent = [envelope("a", UNICODE, key="k", traceparent=TRACE, tracestate="x=1"), envelope("b")]
    assert await transport.send(sent) == []
    worker = node("work", redis.port, "q", count=2)
    first, second = worker.fact("done"), worker.fact("done")
    assert [first["done"], first["name"], first["attempts"]] == ["a", "shop.order.placed", 3]
    assert first["data"] == json.loads(envelope_to_json(sent[0]))
    assert json.loads(first["telemetry"]["metadata"]) == {"traceparent": TRACE, "tracestate": "x=1"}
    assert [second["done"], second.get("telemetry")] == ["b", None]
    assert events_of(listener, "b", "completed") == ["added", "waiting", "active", "completed"]


async def test_tidings_gets_what_node_adds_and_node_learns_that_it_is_done(
    redis: RedisServer, opened: Opening, node: Run
) -> None:
    listener = node("listen", redis.port, "q")
    listener.fact("ready")
    jobs = cloud_events("a", "b", telemetry={"metadata": json.dumps({"traceparent": TRACE})})
    adding = node("add", redis.port, "q", jobs=jobs, bulk=True, wait=True)
    assert adding.fact("id")["id"] == "a"
    transport = await opened(redis.url(inward="q"))
    found = await received(transport, 2)
    assert [json.loads(delivery.body) for delivery in found] == [job["data"] for job in jobs]
    assert envelope_from_json(found[0].body).key == "k"
    assert found[0].headers == {"name": "n", "traceparent": TRACE}
    assert [adding.fact("finished")["finished"] for _ in jobs] == ["a", "b"]
    assert events_of(listener, "b", "completed") == ["added", "waiting", "active", "completed"]
    looked = node("look", redis.port, "q", ids=["a"]).fact("counts")
    assert looked["states"] == {"a": "completed"}
    assert looked["workers"] == 1


async def test_priorities_and_what_a_sender_wants_kept_are_as_node_has_them(
    redis: RedisServer, opened: Opening, node: Run
) -> None:
    jobs = [
        *cloud_events("late", priority=7),
        *cloud_events("soon", priority=2),
        *cloud_events("first", removeOnComplete=True),
        *cloud_events("second", removeOnComplete={"age": 3600, "count": 100}),
    ]
    list(node("add", redis.port, "q", jobs=jobs).facts())
    transport = await opened(redis.url(inward="q"))
    assert ids(await received(transport, 4)) == ["first", "second", "soon", "late"]
    looked = node("look", redis.port, "q", ids=["first", "second"]).fact("counts")
    assert looked["states"] == {"first": "unknown", "second": "completed"}
    assert looked["counts"]["completed"] == 3


async def test_node_refuses_the_ids_that_tidings_refuses(redis: RedisServer, opened: Opening, node: Run) -> None:
    transport = await opened(redis.url(queue="q"))
    names = ["a:b", "17"]
    facts = node("add", redis.port, "q", jobs=[{"name": "n", "data": {}, "opts": {"jobId": name}} for name in names])
    assert [fact["id"] for fact in facts.facts() if "error" in fact] == names
    assert [refusal.event_id for refusal in await transport.send([envelope(name) for name in names])] == names


async def test_a_killed_node_worker_loses_nothing(redis: RedisServer, opened: Opening, node: Run) -> None:
    transport = await opened(redis.url(queue="q", inward="other", **SHORT))
    await transport.send([envelope(name) for name in "abc"])
    worker = node("work", redis.port, "q", hold=60_000, concurrency=2, lock=1000, stalled=500)
    assert {worker.fact("taken")["taken"] for _ in range(2)} == {"a", "b"}
    worker.kill()
    here = await opened(redis.url(inward="q", **SHORT))
    assert set(ids(await received(here, 3))) == set("abc")


async def test_a_killed_tidings_process_leaves_its_jobs_to_a_node_worker(
    redis: RedisServer, opened: Opening, node: Run
) -> None:
    transport = await opened(redis.url(queue="q"))
    await transport.send([envelope(name) for name in "abc"])
    with consumer(redis.url(inward="q", **SHORT), "60") as process:
        assert said(process) == "a"
        process.kill()
    worker = node("work", redis.port, "q", count=3, lock=1000, stalled=500)
    assert {worker.fact("done")["done"] for _ in range(3)} == set("abc")


async def test_a_job_whose_worker_dies_again_and_again_is_not_failed(
    redis: RedisServer, opened: Opening, node: Run
) -> None:
    """By itself BullMQ fails a job for good at its second stall."""
    transport = await opened(redis.url(queue="q"))
    await transport.send([envelope("a")])
    for _ in range(3):
        with consumer(redis.url(inward="q", **SHORT), "60") as process:
            assert said(process) == "a"
            process.kill()
    here = await opened(redis.url(inward="q", **SHORT))
    assert ids(await received(here, 1)) == ["a"]
    assert redis.call("HGET", "bull:q:a", "stc") == "3"
    assert redis.call("HEXISTS", "bull:q:a", "defa") == ":0"  # by which BullMQ marks a job that is to fail
    looked = node("look", redis.port, "q", ids=["a"]).fact("counts")
    assert looked["states"] == {"a": "completed"}


async def test_a_job_that_a_node_worker_marked_as_failing_is_carried_all_the_same(
    redis: RedisServer, opened: Opening
) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    await transport.send([envelope("a")])
    redis.call("HSET", "bull:q:a", "defa", "job stalled more than allowable limit")
    assert ids(await received(transport, 1)) == ["a"]


async def test_a_stopped_process_that_goes_on_does_not_settle_what_another_has(
    redis: RedisServer, opened: Opening
) -> None:
    transport = await opened(redis.url(queue="q"))
    await transport.send([envelope("a")])
    with consumer(redis.url(inward="q", **SHORT), "0.3") as process:
        assert said(process) == "a"
        process.send_signal(signal.SIGSTOP)
        here = await opened(redis.url(inward="q", **SHORT))
        held = await received(here, 1, settle=False)
        process.send_signal(signal.SIGCONT)
        assert said(process) == "settled 1"
        assert redis.call("ZCARD", "bull:q:completed") == ":0"
        assert redis.call("LLEN", "bull:q:active") == ":1"
        await here.settle(held)
    assert redis.call("ZCARD", "bull:q:completed") == ":1"


@pytest.mark.parametrize("killed", ["redis", "redis and node"])
async def test_a_redis_killed_between_sending_and_working_keeps_every_job(
    own_redis: RedisServer, opened: Opening, node: Run, killed: str
) -> None:
    transport = await opened(own_redis.url(queue="q"))
    names = [f"e{number}" for number in range(200)]
    worker = node("work", own_redis.port, "q", hold=5, count=200, lock=1000, stalled=500)
    worker.fact("ready")
    for start in range(0, 200, 50):
        await transport.send([envelope(name) for name in names[start : start + 50]])
        own_redis.kill()
        if killed == "redis and node":
            worker.kill()
            worker = node("work", own_redis.port, "q", hold=5, lock=1000, stalled=500)
        own_redis.start()
    here = await opened(own_redis.url(inward="q", **SHORT))
    if killed == "redis and node":
        worker.fact("done")
        worker.kill()
    else:
        worker.kill()
    done = int(own_redis.call("ZCARD", "bull:q:completed")[1:])
    left = await received(here, 200 - done)
    assert len(set(ids(left))) == 200 - done
    assert own_redis.call("ZCARD", "bull:q:completed") == ":200"
    assert own_redis.call("LLEN", "bull:q:wait") == ":0"


@pytest.mark.parametrize("ending", ["failed", "completed"])
async def test_what_is_sent_again_comes_again_whatever_became_of_its_job(
    redis: RedisServer, opened: Opening, node: Run, ending: str
) -> None:
    transport = await opened(redis.url(queue="q"))
    sent = [envelope("a", UNICODE), envelope("b")]
    assert await transport.send(sent) == []
    first = node("work", redis.port, "q", fails=ending == "failed", count=2)
    name = "failed" if ending == "failed" else "done"
    assert [first.fact(name)[name] for _ in sent] == ["a", "b"]
    first.kill()
    states = {"a": ending, "b": ending}
    assert node("look", redis.port, "q", ids=["a", "b"]).fact("counts")["states"] == states
    assert await transport.send(sent[:1]) == []  # a repetition, as after a crash of the relay
    assert node("look", redis.port, "q", ids=["a", "b"]).fact("counts")["states"] == states
    assert await transport.send(sent[:1], again=True) == []
    assert node("look", redis.port, "q", ids=["a", "b"]).fact("counts")["states"] == {"a": "waiting", "b": ending}
    done = node("work", redis.port, "q", count=1).fact("done")
    assert (done["done"], done["data"]) == ("a", json.loads(envelope_to_json(sent[0])))


async def test_what_a_worker_has_right_now_is_sent_again_when_that_has_ended(
    redis: RedisServer, opened: Opening, node: Run
) -> None:
    transport = await opened(redis.url(queue="q"))
    await transport.send([envelope("a")])
    worker = node("work", redis.port, "q", hold=3000, fails=True)
    worker.fact("taken")
    (refusal,) = await transport.send([envelope("a")], again=True)
    assert (refusal.event_id, refusal.retryable) == ("a", True)
    assert "A worker has the job" in refusal.reason
    worker.fact("failed")
    assert await transport.send([envelope("a")], again=True) == []
    assert worker.fact("taken")["taken"] == "a"


async def test_another_sources_job_of_the_same_id_stays_when_ours_is_sent_again(
    redis: RedisServer, opened: Opening
) -> None:
    transport = await opened(redis.url(queue="q", inward="q"))
    await transport.send([replace(envelope("a"), source=source) for source in ("theirs", "ours")])
    await received(transport, 2)
    assert await transport.send([replace(envelope("a"), source="ours")], again=True) == []
    (delivery,) = await received(transport, 1)
    assert envelope_from_json(delivery.body).source == "ours"
    assert redis.call("ZCARD", "bull:q:completed") == ":2"
