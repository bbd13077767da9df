"""Metrics, read by OpenTelemetry's own SDK: the fence and its holder, and how far the subscriptions are."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tidings import Event, RetryPolicy, Service, Transaction, telemetry
from tidings.integrations.asyncpg import publish

Points = dict[str, dict[tuple[tuple[str, Any], ...], float]]


class Placed(Event, name="telemetry.placed", key="order"):
    order: str


@pytest.fixture(scope="module")
def reader() -> InMemoryMetricReader:
    """A process has one provider, for good; services that are not asked do not notice it."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    assert metrics.get_meter_provider() is provider
    return reader


def points(reader: InMemoryMetricReader) -> Points:
    data = reader.get_metrics_data()
    found: Points = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                series = found.setdefault(metric.name, {})
                for point in metric.data.data_points:
                    series[tuple(sorted(point.attributes.items()))] = point.value
    return found


async def asked_until(reader: InMemoryMetricReader, holds: Callable[[Points], object]) -> Points:
    """Collect in another thread, as an exporter does, until something holds."""
    async with asyncio.timeout(20):
        while not holds(found := await asyncio.to_thread(points, reader)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return found


def make(store: str) -> Service:
    service = Service("metered", store=store)

    @service.subscribe(Placed, ordered=True, retry=RetryPolicy(attempts=1), start="beginning")
    async def charge(event: Placed, tx: Transaction) -> None:
        if event.order == "bad":
            raise ValueError("refused")

    return service


OF_CHARGE = (("tidings.service", "metered"), ("tidings.subscription", "charge"))


def held(found: Points, state: str) -> float | None:
    return found.get("tidings.subscription.held", {}).get((("state", state), *OF_CHARGE))


async def test_subscriptions_are_told_on_every_store(reader: InMemoryMetricReader, tmp_path: Any) -> None:
    service = make(f"sqlite:///{tmp_path / 'metered.db'}")
    async with service.running(consumers=False):
        for order in ("bad", "bad", "good"):
            await service.publish(Placed(order=order))
    async with service:
        found = await asked_until(reader, lambda found: held(found, "dead"))
        assert (held(found, "dead"), held(found, "behind"), held(found, "retry")) == (1, 1, 0)
        assert found["tidings.subscription.pending"] == found["tidings.subscription.ready"] == {OF_CHARGE: 0}
        assert "tidings.fence.age" not in found
    async with service.running(consumers=False):
        await service.publish(Placed(order="waits"))
        await asyncio.sleep(0.2)
        found = await asyncio.to_thread(points, reader)
        assert found["tidings.subscription.pending"] == {OF_CHARGE: 1}
        assert 0.2 <= found["tidings.subscription.lag"][OF_CHARGE] < 20
    assert await asyncio.to_thread(points, reader) == {}


async def test_the_holder_of_the_fence_is_told_and_named_once_it_is_old(
    reader: InMemoryMetricReader, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "NAMED_SECONDS", 0.5)
    service = make(postgres_url)
    database = ("db.namespace", postgres_url.rpartition("/")[2].partition("?")[0])
    connection = await asyncpg.connect(postgres_url, server_settings={"application_name": "slow"})
    async with service:
        assert (await asyncio.to_thread(points, reader))["tidings.fence.age"] == {(database,): 0}
        async with connection.transaction():
            await publish(connection, Placed(order="good"), service=service)
            found = await asked_until(reader, lambda found: found["tidings.fence.age"].get((database,), 9) != 0)
            assert len(found["tidings.fence.age"]) == 1
            named = (database, ("tidings.holder.application", "slow"),
                     ("tidings.holder.pid", connection.get_server_pid()))  # fmt: skip
            found = await asked_until(reader, lambda found: named in found["tidings.fence.age"])
            assert 0.5 < found["tidings.fence.age"][named] < 20
            assert len(found["tidings.fence.age"]) == 1
        found = await asked_until(reader, lambda found: found["tidings.fence.age"].get((database,)) == 0)
    await connection.close()


async def test_a_collection_on_the_loop_waits_for_nothing_and_one_without_a_database_tells_nothing(
    reader: InMemoryMetricReader, postgres_url: str
) -> None:
    service = make(postgres_url)
    async with service:
        points(reader)  # begins a measurement; a callback that waited for it here would never end
        async with asyncio.timeout(10):
            while "tidings.fence.age" not in points(reader):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(telemetry.FRESH_SECONDS)
        admin = await asyncpg.connect(postgres_url)
        await admin.execute("ALTER SCHEMA tidings RENAME TO elsewhere")
        assert await asyncio.to_thread(points, reader) == {}
        await admin.execute("ALTER SCHEMA elsewhere RENAME TO tidings")
        await admin.close()
        assert "tidings.fence.age" in await asked_until(reader, lambda found: found)


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
import asyncio
from tidings import Service, telemetry

async def main():
    assert telemetry.metrics is None
    async with Service("bare", store="sqlite:///:memory:"):
        assert telemetry._sources == telemetry._instruments == []

asyncio.run(main())
"""


def test_a_service_runs_without_the_package() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)
