"""Suite: what is sent arrives, once, as it was; what cannot be sent is refused alone."""

# ruff: noqa: D102 - the names of the tests say what they do

import asyncio
from collections import Counter
from pathlib import Path

import msgspec

from tidings.events import MAX_BYTES, envelope_from_json, envelope_to_json
from tidings.testing.conformance.samples import envelope, sized
from tidings.testing.conformance.transports.opening import TransportOpening, claimed, ids

UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
UNICODE = 'Grüße, 世界 🎉 \u2028 \u0085 \\u0000 "quoted" </end>'


class DeliverySuite(TransportOpening):
    """Part of TransportSuite."""

    async def test_what_is_sent_comes_and_hardly_anything_comes_twice(self, tmp_path: Path) -> None:
        sent = [envelope(f"e{number}", key=f"k{number % 7}") for number in range(300)]
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            await asyncio.gather(self.send(one, sent[:100]), self.send(one, sent[100:200]), self.send(two, sent[200:]))
            came = Counter(found.id for found in await self.drained(one, [each.id for each in sent]))
        assert set(came) == {each.id for each in sent}
        twice = came.total() - len(came)
        assert twice <= self.duplicates * len(sent), f"{twice} of {len(sent)} came again although nothing failed"

    async def test_several_receivers_share_a_queue(self, tmp_path: Path) -> None:
        sent = [envelope(f"e{number}") for number in range(60)]
        wanted = {each.id for each in sent}
        came: list[str] = []
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two, self.opened(tmp_path) as three:

            async def take(number: int) -> None:
                transport = (one, two, three)[number]
                while not wanted <= set(came):
                    some = await transport.receive(4)
                    came.extend(ids(some))
                    await transport.settle(some)

            await self.send(one, sent)
            takers = [asyncio.create_task(take(number)) for number in range(3)]
            await asyncio.wait(takers, timeout=self.patience, return_when=asyncio.FIRST_COMPLETED)
            for taker in takers:
                taker.cancel()
            await asyncio.gather(*takers, return_exceptions=True)
        assert set(came) == wanted
        assert len(came) - len(wanted) <= self.duplicates * len(sent)

    async def test_every_attribute_and_character_stays_as_it_was(self, tmp_path: Path) -> None:
        full = envelope(
            "full", key="Schlüssel 🔑", share="tenant", subject="s/1", causation="c", version="2.1", keep="3600",
            supersedes="old", extensions={"channel": "é"}, tracestate="x=1", traceparent=UNSAMPLED,
            data=msgspec.json.encode({"text": UNICODE, "empty": "", "nested": [[{"a": None}]], "n": 1.5}),
        )  # fmt: skip
        sent = [full, envelope("empty", data=b"{}"), envelope("plain")]
        async with self.opened(tmp_path) as transport:
            await self.send(transport, sent)
            found = await self.drained(transport, [each.id for each in sent])
        assert sorted(found, key=lambda each: each.id) == sorted(sent, key=lambda each: each.id)

    async def test_the_trace_of_an_unsampled_event_arrives(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as transport:
            await self.send(transport, [envelope("e", traceparent=UNSAMPLED)])
            (delivery,) = await self.received(transport, 1)
        assert envelope_from_json(delivery.body).traceparent == UNSAMPLED

    async def test_the_largest_is_taken_and_what_is_larger_is_refused_alone(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as transport:
            limit = min(transport.capabilities.max_bytes, MAX_BYTES)
            largest, larger = sized("largest", limit), sized("larger", transport.capabilities.max_bytes + 1)
            refused = await transport.send([envelope("before"), larger])
            refused += await transport.send([envelope("after")])
            refused += await transport.send([largest])
            found = await self.drained(transport, ["before", "after", "largest"])
        assert [(one.event_id, one.retryable) for one in refused] == [("larger", False)]
        assert str(len(envelope_to_json(larger))) in refused[0].reason, "the reason does not say how large it is"
        assert largest in found
        assert {each.id for each in found} == {"before", "after", "largest"}

    async def test_a_full_batch_is_taken_and_none_is_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as transport:
            assert await transport.send([]) == []
            sent = [envelope(f"e{number}") for number in range(transport.capabilities.max_batch)]
            assert await transport.send(sent) == []
            await transport.settle([])
            found = await self.drained(transport, [each.id for each in sent])
        assert len({each.id for each in found}) == len(sent)

    async def test_one_id_of_two_sources_is_two_events(self, tmp_path: Path) -> None:
        """Ids are unique within their source only: the second comes too, or its sender is told that it does not."""
        chosen, fresh = "order-1", "0190a2b4-7c00-7000-8000-000000000000"
        sent = [envelope(each, source=source) for each in (chosen, fresh) for source in ("here", "there")]
        async with self.opened(tmp_path) as transport:
            refused = [one.event_id for each in sent for one in await transport.send([each])]
            found = await self.drained(transport, [chosen, fresh])
        came = Counter(each.id for each in found)
        assert {each: came[each] + refused.count(each) for each in (chosen, fresh)} == {chosen: 2, fresh: 2}

    async def test_one_event_sent_twice_comes_once_within_the_window(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as transport:
            claimed(transport, "dedup_seconds")
            first = envelope("first", key="k")
            await self.send(transport, [first, first])
            await self.send(transport, [first, envelope("second", key="k")])
            found = await self.drained(transport, ["first", "second"])
            await self.send(transport, [first])  # also after it was settled
            await self.nothing_comes(transport)
        assert [each.id for each in found] == ["first", "second"]

    async def test_what_is_sent_again_on_purpose_comes_again(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as transport:
            claimed(transport, "dedup_seconds")
            for again in (False, True, True):
                assert await transport.send([envelope("e", key="k")], again=again) == []
                assert ids(await self.received(transport, 1)) == ["e"]

    async def test_what_was_sent_before_anybody_listened_comes(self, tmp_path: Path) -> None:
        sent = [envelope(f"e{number}") for number in range(20)]
        async with self.opened(tmp_path, f"{self.queue}-other") as transport:
            await self.send(transport, sent)
        async with self.opened(tmp_path) as transport:
            await self.drained(transport, [each.id for each in sent])

    async def test_queues_do_not_mix(self, tmp_path: Path) -> None:
        other = f"{self.queue}-other"
        async with self.opened(tmp_path) as one, self.opened(tmp_path, other, sends=other) as two:
            await self.send(one, [envelope("one")])
            await self.send(two, [envelope("two")])
            assert [each.id for each in await self.drained(one, ["one"])] == ["one"]
            assert [each.id for each in await self.drained(two, ["two"])] == ["two"]

    async def test_one_send_reaches_every_queue(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as transport:
            claimed(transport, "fan_out")
        queues = [f"{self.queue}-{number}" for number in range(3)]
        sent = [envelope(f"e{number}") for number in range(10)]
        async with self.opened_at(self.fan_out_url(tmp_path, queues, self.queue)) as sender:
            await self.send(sender, sent)
        for queue in queues:
            async with self.opened(tmp_path, queue) as transport:
                found = await self.drained(transport, [each.id for each in sent])
                assert len(found) == len(sent)
