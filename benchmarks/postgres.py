"""Measures Tidings on Postgres beside raw asyncpg on the same tables, in one run.

python benchmarks/postgres.py [--rounds 7] [--quick] [--only WORD] [--server URL], or --soak [--minutes 30]. What each
figure means and what was seen: docs/reference/benchmarks-postgres.md.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import asyncpg
import msgspec
import ours
import postgres_latency
import postgres_session
import postgres_soak
from frame import Case, Goal, installed, machine, print_report, run_rounds
from peers import raw_postgres
from postgres_server import Server, check_charges, ready_rows, running, within

from tidings.integrations.asyncpg import publish

CONNECTIONS = 16
CALLERS = 256
RATES = (20, 100)
WARM_UP = 10
"""The first events of a latency, whose connections are opened and statements prepared, are not counted."""

OUTBOXES = (0, 1, 10)
NOTICES = {"notice after commit": False, "notice in the transaction": True}
T = TypeVar("T")
Figures = Mapping[str, Sequence[float]]


class Sizes(msgspec.Struct, frozen=True):
    """How much each case does in a round."""

    published: int
    coalesced: int
    drained: int
    nothing: int
    transactions: int
    seconds: float


FULL = Sizes(6_000, 25_600, 8_000, 20_000, 1_600, 2.0)
QUICK = Sizes(320, 2_560, 400, 1_000, 80, 0.2)


class Bench:
    """The cases, each in a fresh database."""

    def __init__(self, server: Server, sizes: Sizes) -> None:
        self._server = server
        self._sizes = sizes

    # Publishing.

    def publish_joined(self) -> Figures:
        """Measure publishing on connections of the user's own, each event in its own transaction."""
        count = self._sizes.published

        async def run(url: str) -> float:
            events = [ours.order(number) for number in range(count)]
            connections = [await asyncpg.connect(url) for _ in range(CONNECTIONS)]
            async with ours.service_on(url).running(consumers=False) as service:

                async def each(connection: asyncpg.Connection, part: Sequence[ours.OrderPlaced]) -> None:
                    for event in part:
                        await publish(connection, event, service=service)

                await asyncio.gather(*(each(one, [ours.order(0)]) for one in connections))  # prepares statements
                return await rate(count, *(each(one, events[n::CONNECTIONS]) for n, one in enumerate(connections)))

        return {f"publish, {CONNECTIONS} connections: tidings": [self._fresh(run)]}

    def publish_transactions(self) -> Figures:
        """Measure `service.transaction()` by as many tasks as there are connections beside it."""
        count = self._sizes.published

        async def run(url: str) -> float:
            events = [ours.order(number) for number in range(count)]
            async with ours.service_on(url).running(consumers=False) as service:

                async def each(part: Sequence[ours.OrderPlaced]) -> None:
                    for event in part:
                        async with service.transaction() as tx:
                            tx.publish(event)

                await asyncio.gather(*(each([ours.order(0)]) for _ in range(CONNECTIONS)))
                return await rate(count, *(each(events[n::CONNECTIONS]) for n in range(CONNECTIONS)))

        return {f"publish, {CONNECTIONS} connections: tidings, service.transaction()": [self._fresh(run)]}

    def publish_raw(self) -> Figures:
        """Measure inserts of ready rows, each a transaction of its own."""
        count = self._sizes.published

        async def run(url: str) -> float:
            go = await raw_postgres.publish_one_by_one(url, ready_rows(count), CONNECTIONS)
            return await rate(count, go())

        return {f"publish, {CONNECTIONS} connections: raw": [self._fresh(run)]}

    def coalesce(self) -> Figures:
        """Measure `service.publish()` by many callers."""
        count = self._sizes.coalesced
        return {f"publish, {CALLERS} callers: tidings": [self._fresh(lambda url: ours.publish(url, CALLERS, count))]}

    def coalesce_raw(self, connections: int) -> Figures:
        """Measure inserts of ready rows by `unnest`, whatever waits at once."""
        count = self._sizes.coalesced

        async def run(url: str) -> float:
            rows = ready_rows(count)
            raw = await raw_postgres.Coalescer.connected(url, connections)

            async def each(part: Sequence[raw_postgres.Row]) -> None:
                for row in part:
                    await raw.publish(row)

            await each(rows[:1])
            reached = await rate(count, *(each(rows[caller::CALLERS]) for caller in range(CALLERS)))
            await raw.close()
            return reached

        return {f"publish, {CALLERS} callers: raw unnest, {connections} at once": [self._fresh(run)]}

    # Draining.

    def drain(self) -> Figures:
        """Measure an ordered Transaction handler that writes a row of its own for each event, and check the rows."""
        count = self._sizes.drained
        with self._server.database(filled=count) as url:
            reached = asyncio.run(ours.drain_with_effects(url, count))
            check_charges(url, count)
        return {"drain, a write each: tidings": [reached]}

    def drain_nothing(self) -> Figures:
        """Measure a handler that does nothing."""
        count = self._sizes.nothing
        with self._server.database(filled=count) as url:
            return {"drain, no-op: tidings": [asyncio.run(ours.drain_nothing(url, count, "Transaction"))]}

    def drain_raw(self, name: str, *, inbox: bool, effect: bool, savepoints: bool = False) -> Figures:
        """Measure a plain loop over batches, and check its rows."""
        count = self._sizes.drained if effect else self._sizes.nothing
        decode = msgspec.json.Decoder(ours.OrderPlaced).decode

        async def run(connection: object) -> float:
            loop = raw_postgres.Drain(connection, decode, inbox=inbox, effect=effect, savepoints=savepoints)
            return await rate(count, loop.run(count))

        with self._server.database(filled=count) as url:
            reached = asyncio.run(within(url, run))
            if effect:
                check_charges(url, count)
        return {f"drain, {'a write each' if effect else 'no-op'}: raw, {name}": [reached]}

    # Latency.

    def latency(self, per_second: int, processes: int) -> Figures:
        """Measure Tidings at a steady rate."""
        count = WARM_UP + max(5, int(per_second * self._sizes.seconds))
        measure = postgres_latency.tidings if processes == 1 else postgres_latency.tidings_apart
        return named_latencies(
            self._fresh(lambda url: measure(url, per_second, count)), per_second, processes, "tidings"
        )

    def latency_raw(self, per_second: int, processes: int, notice: str) -> Figures:
        """Measure LISTEN at a steady rate."""
        rows = ready_rows(WARM_UP + max(5, int(per_second * self._sizes.seconds)))
        measure = partial(
            postgres_latency.raw if processes == 1 else postgres_latency.raw_apart, in_transaction=NOTICES[notice]
        )
        seen = self._fresh(lambda url: measure(url, per_second, rows))
        return named_latencies(seen, per_second, processes, f"raw LISTEN, {notice}")

    # The user's own transaction.

    def session(self, events: int) -> Figures:
        """Measure transactions of a SQLAlchemy session."""
        count = self._sizes.transactions
        reached = self._fresh(lambda url: postgres_session.transactions(url, count, events))
        return {session_name(events): [reached]}

    def _fresh(self, run: Callable[[str], Awaitable[T]]) -> T:
        with self._server.database() as url:
            return asyncio.run(run(url))


async def rate(count: int, *work: Awaitable[None]) -> float:
    """Do everything at once; return how much of `count` that was a second."""
    began = time.perf_counter()
    await asyncio.gather(*work)
    return count / (time.perf_counter() - began)


def named_latencies(seen: Mapping[str, list[float]], per_second: int, processes: int, side: str) -> Figures:
    """Return what was seen since the commit under the name of a figure."""
    return {latency_name(per_second, processes, side): seen["commit"][WARM_UP:]}


def latency_name(per_second: int, processes: int, side: str) -> str:
    """Return the name of a latency's figure."""
    return f"commit → handler, {per_second}/s, {'one process' if processes == 1 else 'two processes'}: {side}"


def session_name(events: int) -> str:
    """Return the name of the figure of a transaction that publishes so many events."""
    return f"SQLAlchemy session: {f'with {events} in the outbox' if events else 'the business alone'}"


def cases_of(bench: Bench) -> dict[str, Callable[[], Figures]]:
    """Return every case by its name."""
    cases: dict[str, Callable[[], Figures]] = {
        "publish 16": bench.publish_joined,
        "publish 16 transaction": bench.publish_transactions,
        "publish 16 raw": bench.publish_raw,
        "publish 256": bench.coalesce,
        "publish 256 raw 1": partial(bench.coalesce_raw, 1),
        "publish 256 raw 2": partial(bench.coalesce_raw, 2),
        "drain": bench.drain,
        "drain raw inbox": partial(bench.drain_raw, "inbox", inbox=True, effect=True, savepoints=True),
        "drain raw progress": partial(bench.drain_raw, "progress only", inbox=False, effect=True, savepoints=True),
        "drain raw bare": partial(bench.drain_raw, "no savepoints", inbox=True, effect=True),
        "no-op": bench.drain_nothing,
        "no-op raw inbox": partial(bench.drain_raw, "inbox", inbox=True, effect=False),
        "no-op raw progress": partial(bench.drain_raw, "progress only", inbox=False, effect=False),
    }
    for per_second in RATES:
        for processes in (1, 2):
            name = f"latency {per_second} {processes}"
            cases[name] = partial(bench.latency, per_second, processes)
            for notice in NOTICES:
                cases[f"{name} raw {notice}"] = partial(bench.latency_raw, per_second, processes, notice)
    return cases | {f"session {events}": partial(bench.session, events) for events in OUTBOXES}


def goals_of() -> list[Goal]:
    """Return what shall be reached."""
    one_by_one, coalesced = f"publish, {CONNECTIONS} connections:", f"publish, {CALLERS} callers:"
    effects, nothing = "drain, a write each:", "drain, no-op:"
    goals = [
        Goal(f"{one_by_one} tidings", (f"{one_by_one} raw",), at_least=0.75),
        Goal(f"{coalesced} tidings", tuple(f"{coalesced} raw unnest, {n} at once" for n in (1, 2)), at_least=0.6),
        Goal(f"{effects} tidings", (f"{effects} raw, inbox",), at_least=0.8),
        Goal(f"{nothing} tidings", (f"{nothing} raw, inbox",), at_least=0.6),
    ]
    for per_second in RATES:
        for processes in (1, 2):
            figure = latency_name(per_second, processes, "tidings")
            for notice in NOTICES:
                beside = latency_name(per_second, processes, f"raw LISTEN, {notice}")
                goals.append(Goal(figure, (beside,), at_most=1.3))
            goals.append(Goal(figure, at_most=10))
    for events, ratio in ((1, 0.75), (10, 0.65)):
        goals.append(Goal(session_name(events), (session_name(0),), at_least=ratio))
    return goals


def settings_of(server: Server) -> dict[str, str]:
    """Return versions and settings."""
    return {
        **machine(),
        **server.settings(),
        **installed("tidings", "asyncpg", "sqlalchemy", "msgspec"),
        "settings": f"batches of up to 50 events or 20 ms (raw: {raw_postgres.BATCH} events); "
        f"{postgres_session.SESSIONS} sessions at once; asyncio without uvloop",
    }


def main() -> None:
    """Run the rounds and print the report, or hold an old snapshot open."""
    parser = argparse.ArgumentParser(description="Measure Tidings on Postgres beside raw asyncpg.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one small round: does everything run?")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--server", help="the URL of a database on a server where databases may be created")
    parser.add_argument("--soak", action="store_true", help="publish and handle while an old snapshot is held open")
    parser.add_argument("--minutes", type=int, default=30, help="how long --soak lasts")
    args = parser.parse_args()
    with running(args.server or os.environ.get("TIDINGS_TEST_POSTGRES")) as server:
        if args.soak:
            postgres_soak.soak(server, args.minutes)
            return
        bench = Bench(server, QUICK if args.quick else FULL)
        cases = [Case(measure) for name, measure in cases_of(bench).items() if args.only in name]
        results = run_rounds(cases, 1 if args.quick else args.rounds)
        print_report(results, goals_of(), settings_of(server))


if __name__ == "__main__":
    main()
