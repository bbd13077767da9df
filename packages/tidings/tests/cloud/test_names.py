"""Whose event it is: what comes under this service's own name, and what a service keeps to itself."""

import asyncio
from pathlib import Path

from waiting import until

from tidings import Event, Service, operations
from tidings.backends.memory import put
from tidings.operations import Filter
from tidings.rows import LANDING


class Printed(Event, name="cloud.printed", key="label"):
    label: str


def service(folder: Path, store: str, transport: str) -> Service:
    """Return a service whose name others have, too."""
    made = Service("labels", store=f"sqlite:///{folder}/{store}.db", transport=f"memory://{transport}")
    made.register(Printed)
    return made


async def test_an_event_of_another_service_of_the_same_name_is_a_dead_letter_and_not_dropped(tmp_path: Path) -> None:
    sends, takes = service(tmp_path, "one", "same-name?in=forth"), service(tmp_path, "two", "back?in=same-name")
    seen: list[str] = []

    @takes.subscribe(Printed)
    async def look(event: Printed) -> None:
        seen.append(event.label)

    async with sends, takes:
        await sends.publish(Printed(label="l-1"))
        (letter,) = await until(lambda: operations.letters(takes.store, Filter()), len)
    assert letter.subscription == LANDING
    assert "'labels', which is this service, and is not in its log. Let whoever sends it" in letter.reason
    assert seen == []


async def test_an_own_event_that_comes_back_is_here_already(tmp_path: Path) -> None:
    own = service(tmp_path, "one", "echo?in=echo")
    async with own:
        said = await own.publish(Printed(label="l-1"))
        await until(lambda: own.store.reading.pending("labels:relay", None), lambda found: found[0] == 0)
        await asyncio.sleep(0.2)
        assert await operations.letters(own.store, Filter()) == []
        assert [record.envelope.id for record in await own.store.reading.find(said.id)] == [said.id]
        assert await own.store.reading.head() == 1


async def test_the_record_of_a_refused_message_is_not_sent_on(tmp_path: Path) -> None:
    first, next_one = (
        service(tmp_path, "one", "sent-on?in=bad"),
        Service("shelf", store=f"sqlite:///{tmp_path}/three.db", transport="memory://nowhere?in=sent-on"),
    )
    async with first, next_one:
        put("bad", b"no event")
        await until(lambda: operations.letters(first.store, Filter()), len)
        said = await first.publish(Printed(label="l-1"))  # behind it in the log
        await until(lambda: next_one.store.reading.find(said.id), len)
        assert await next_one.store.reading.head() == 1
