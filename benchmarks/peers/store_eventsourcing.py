"""The `eventsourcing` library on Postgres or SQLite. Prints JSON; runs in .venv-bench/eventsourcing.

python store_eventsourcing.py URL CASE COUNT, where CASE is append-N (N writers, an event a save), bulk (1,000 events a
save), replay (all events of the log as typed ones) or load (of an aggregate of COUNT events). As the library comes:
its application, its JSON transcoder, its pools, its table lock (without which it misses events).
"""

import json
import sys
import threading
import time
from importlib.metadata import version
from urllib.parse import urlsplit
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

BULK, LOADS, NOTE = 1000, 30, "a remark of a hundred characters or so, as people write them beside a payment " * 2


class Account(Aggregate):
    """An account that money comes to."""

    @event("Opened")
    def __init__(self) -> None:
        self.balance = 0

    @event("Deposited")
    def deposit(self, amount: int, note: str) -> None:
        """Pay in."""
        self.balance += amount


def environment(url: str) -> dict[str, str]:
    """Return the library's settings for a store."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": parts.path[1:]}
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path[1:],
        "POSTGRES_HOST": parts.hostname or "",
        "POSTGRES_PORT": str(parts.port or 5432),
        "POSTGRES_USER": parts.username or "",
        "POSTGRES_PASSWORD": parts.password or "unused",
    }


app = Application({**environment(sys.argv[1]), "IS_SNAPSHOTTING_ENABLED": "yes"})


def opened() -> Account:
    """Return a new account that is saved: the pool's connection is there by then."""
    account = Account()
    app.save(account)
    return account


def append(writers: int, count: int) -> list[float]:
    """Save events one by one, each of the writers to an aggregate of its own; return events per second."""
    accounts = [opened() for _ in range(writers)]

    def write(account: Account) -> None:
        for _ in range(count // writers):
            account.deposit(1, NOTE)
            app.save(account)

    threads = [threading.Thread(target=write, args=(account,)) for account in accounts]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [count // writers * writers / (time.perf_counter() - began)]


def fill(count: int) -> tuple[UUID, float]:
    """Save many events at a time; return the last aggregate, and events per second of the saving alone."""
    seconds = 0.0
    account = opened()
    for _ in range(max(1, count // BULK)):
        account = opened()
        for _ in range(min(BULK, count)):
            account.deposit(1, NOTE)
        began = time.perf_counter()
        app.save(account)
        seconds += time.perf_counter() - began
    return account.id, count / seconds


def replay() -> list[float]:
    """Read every event of the log as a typed one; return events per second."""
    began, start, found = time.perf_counter(), 1, 0
    while notifications := app.recorder.select_notifications(start, BULK):
        for notification in notifications:
            app.mapper.to_domain_event(notification)
        start = notifications[-1].id + 1
        found += len(notifications)
    return [found / (time.perf_counter() - began)]


def load(account: UUID) -> list[float]:
    """Return how long loads took, in milliseconds."""
    taken = []
    for _ in range(LOADS):
        began = time.perf_counter()
        app.repository.get(account)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def main() -> dict[str, list[float]]:
    """Run the case."""
    case, count = sys.argv[2], int(sys.argv[3])
    if case.startswith("append-"):
        return {case: append(int(case.removeprefix("append-")), count)}
    account, rate = fill(count)
    if case == "bulk":
        return {case: [rate]}
    if case == "replay":
        return {case: replay()}
    without = load(account)
    app.take_snapshot(account)
    return {"load": without, "load, snapshot": load(account)}


print(json.dumps({"figures": main(), "version": version("eventsourcing")}))
app.close()
