"""`tidings run`: real processes, real signals. Handlers finish, leases are released, attempts are not miscounted."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tidings import Service

SHOP = '''
"""A service whose work is slow."""
import asyncio, os, sys
from datetime import timedelta
from tidings import Event, Service, Transaction, Work

class Placed(Event, name="run.order.placed", key="order_id"):
    order_id: str
    seconds: float

service = Service("billing", store="sqlite+apsw:///shop.db", grace=timedelta(seconds=GRACE))
service.schema("CREATE TABLE IF NOT EXISTS done (order_id TEXT, pid INTEGER)")

@service.subscribe(Placed)
async def bill(event: Placed, work: Work) -> None:
    with open("started", "a") as file:
        file.write(event.order_id + "\\n")
    await asyncio.sleep(event.seconds)
    async with work.finish() as tx:
        await tx.execute("INSERT INTO done VALUES ($1, $2)", event.order_id, os.getpid())

@service.subscribe(Placed, ordered=True)
async def note(event: Placed, tx: Transaction) -> None:
    await tx.fetch_value("SELECT 1")

async def publish(seconds: list[float]) -> None:
    async with service.running(consumers=False):
        for number, one in enumerate(seconds):
            await service.publish(Placed(order_id=f"o{number}", seconds=one))

if __name__ == "__main__":
    asyncio.run(publish([float(one) for one in sys.argv[1:]]))
'''


class Shop:
    """A folder with the service; `query` reads its file."""

    def __init__(self, folder: Path, grace: float) -> None:
        self.folder = folder
        (folder / "shop.py").write_text(SHOP.replace("GRACE", str(grace)), "utf-8")

    def publish(self, *seconds: float) -> None:
        subprocess.run([sys.executable, "shop.py", *map(str, seconds)], cwd=self.folder, check=True, timeout=60)

    def query(self, sql: str) -> list[Any]:
        connection = sqlite3.connect(f"file:{self.folder}/shop.db?mode=ro", uri=True, timeout=5)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(1500):
            if condition():
                return
            time.sleep(0.01)
        raise AssertionError(f"it did not come true within 15 s; {self.query('SELECT * FROM tidings_worker')}")

    def workers(self) -> list[int]:
        return sorted(row[0] for row in self.query("SELECT pid FROM tidings_worker"))

    def started(self) -> int:
        file = self.folder / "started"
        return len(file.read_text().split()) if file.exists() else 0

    def owners(self) -> set[str | None]:
        rows = self.query("SELECT owner, max(step) FROM tidings_progress GROUP BY subscription, lane")
        return {row[0] for row in rows}


@contextmanager
def running(shop: Shop, *args: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tidings.cli", "run", "shop:service", *args],
        cwd=shop.folder,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_sigterm_lets_handlers_finish_and_releases_everything(tmp_path: Path) -> None:
    shop = Shop(tmp_path, grace=10)
    shop.publish(1.0, 1.0)
    with running(shop) as process:
        shop.until(lambda: shop.started() == 2)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Stopping" in told
    assert told.rstrip().endswith("billing has stopped.")
    assert len(shop.query("SELECT * FROM done")) == 2
    assert shop.query("SELECT * FROM tidings_ready") == []
    assert shop.query("SELECT * FROM tidings_held") == []
    assert shop.workers() == []
    assert shop.owners() == {None}


def test_an_attempt_cut_short_by_the_grace_time_is_not_counted(tmp_path: Path) -> None:
    shop = Shop(tmp_path, grace=0.3)
    shop.publish(60.0)
    with running(shop) as process:
        shop.until(lambda: shop.started() == 1)
        assert [row[0] for row in shop.query("SELECT attempt FROM tidings_ready")] == [1]
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert time.monotonic() - began < 8
    assert shop.query("SELECT attempt, owner FROM tidings_ready") == [(0, None)]
    assert shop.query("SELECT * FROM tidings_held") == []
    assert shop.workers() == []
    assert shop.owners() == {None}


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path, grace=60)
    shop.publish(60.0)
    with running(shop) as process:
        shop.until(lambda: shop.started() == 1)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "Stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 128 + signal.SIGTERM


def test_several_workers_share_the_work_and_are_started_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path, grace=5)
    shop.publish()
    with running(shop, "--workers", "2") as process:
        shop.until(lambda: len(shop.workers()) == 2)
        before = shop.workers()
        assert process.pid not in before
        os.kill(before[0], signal.SIGKILL)
        shop.until(lambda: len(shop.workers()) == 2 and before[0] not in shop.workers())
        assert before[1] in shop.workers()
        shop.publish(*[0.2] * 60)
        shop.until(lambda: len(shop.query("SELECT * FROM done")) == 60)
        assert {row[0] for row in shop.query("SELECT pid FROM done")} == set(shop.workers())
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "was ended by signal 9; it is started again in 0.5 s" in told
    assert shop.workers() == []
    assert shop.owners() == {None}


def test_workers_stop_by_themselves_when_their_supervisor_dies(tmp_path: Path) -> None:
    shop = Shop(tmp_path, grace=5)
    shop.publish()
    with running(shop, "--workers", "2") as process:
        shop.until(lambda: len(shop.workers()) == 2)
        process.kill()
        process.wait(timeout=10)
        shop.until(lambda: shop.workers() == [])
    assert shop.owners() == {None}


def test_a_service_that_cannot_start_is_not_started_for_ever(tmp_path: Path) -> None:
    shop = Shop(tmp_path, grace=5)
    shop.publish()
    renamed = (tmp_path / "shop.py").read_text().replace("async def note", "async def noted")
    (tmp_path / "shop.py").write_text(renamed)
    with running(shop, "--workers", "2") as process:
        _, told = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "Why: The store knows the subscription 'note' of billing" in told
    assert "What to do: Rename it with renamed_from='note'" in told


@pytest.mark.parametrize("url", ["sqlite:///shop.db", "sqlite:///:memory:", "sqlite+apsw:///:memory:"])
def test_several_workers_are_refused_where_they_would_harm(tmp_path: Path, url: str) -> None:
    shop = Shop(tmp_path, grace=5)
    (tmp_path / "shop.py").write_text((tmp_path / "shop.py").read_text().replace("sqlite+apsw:///shop.db", url))
    if Service("probe", store=url).store.several_processes:
        return  # this Python's SQLite is new enough to share a file
    with running(shop, "--workers", "2") as process:
        _, told = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "What to do: Run one worker, or" in told
    assert "sqlite+apsw://" in told


def test_a_second_process_on_a_file_that_must_not_be_shared_is_refused(tmp_path: Path) -> None:
    shop = Shop(tmp_path, grace=5)
    (tmp_path / "shop.py").write_text((tmp_path / "shop.py").read_text().replace("sqlite+apsw", "sqlite"))
    if Service("probe", store="sqlite:///shop.db").store.several_processes:
        return
    shop.publish()
    with running(shop) as first:
        shop.until(lambda: shop.workers() == [first.pid])
        with running(shop) as second:
            _, told = second.communicate(timeout=30)
        assert second.returncode == 3
        assert f"is written by process {first.pid}" in told
        assert "What to do: Use one process, or install tidings[apsw]" in told


FAILING = '''
"""A service whose handler refuses one event always."""
import asyncio
from datetime import timedelta
from tidings import Event, RetryPolicy, Service, Transaction, Work

class Placed(Event, name="run.order.placed"):
    amount: int

service = Service("failing", store="sqlite:///failing.db")
policy = RetryPolicy(attempts=2, backoff=timedelta(milliseconds=10))

@service.subscribe(Placed, retry=policy)
async def charge(event: Placed, tx: Transaction) -> None:
    if event.amount < 0:
        raise ValueError("below\\nzero \\x1b[31m")

@service.subscribe(Placed, retry=policy)
async def send(event: Placed, work: Work) -> None:
    await charge(event, work)

async def publish() -> None:
    async with service.running(consumers=False):
        for amount in (1, -1, 2):
            await service.publish(Placed(amount=amount), id=f"placed{amount}")

if __name__ == "__main__":
    asyncio.run(publish())
'''


def test_dead_letters_and_retries_are_told_in_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING, "utf-8")
    subprocess.run([sys.executable, "failing.py"], cwd=tmp_path, check=True, timeout=60)
    command = [sys.executable, "-m", "tidings.cli", "run", "failing:service"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told: list[str] = []
        while sum("dead letter" in line for line in told) < 2:
            told.append(process.stderr.readline())
            assert told[-1], told
        status = [sys.executable, "-m", "tidings.cli", "store", "status", "--store", "sqlite:///failing.db"]
        shown = subprocess.run(status, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout
        process.send_signal(signal.SIGTERM)
        told += process.communicate(timeout=20)[1].splitlines(keepends=True)
    failures = [line.rstrip().split(" ", 2)[2] for line in told if "placed" in line]
    event, error = "event placed-1 (run.order.placed)", r"ValueError: below\nzero \x1b[31m"
    assert sorted(failures) == [
        f"{level} tidings: {name}: {text}"
        for level, form in (
            ("ERROR", f"{event} is a dead letter after 2 attempts: {error} (see `tidings dlq show placed-1`)"),
            ("INFO", f"attempt 1 at {event} failed; the next is in 0.0 s: {error}"),
        )
        for name, text in (("charge", form), ("send", form))
    ]
    host = socket.gethostname()
    assert re.search(rf" consumers  +{process.pid}  {re.escape(host)}  [^/]* alive$", shown, re.MULTILINE), shown


def test_a_worker_without_a_role_is_said_to_publish_only(tmp_path: Path) -> None:
    code = """
import asyncio, subprocess, sys
from tidings import Service

async def main() -> None:
    async with Service("shop", store="sqlite:///shop.db").running(consumers=False):
        command = [sys.executable, "-m", "tidings.cli", "store", "status", "--store", "sqlite:///shop.db"]
        await (await asyncio.create_subprocess_exec(*command)).wait()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert "  publishes only  " in done.stdout


STUCK = '''
"""A service with handlers that do not end."""
import asyncio, sys, threading
from datetime import timedelta
from tidings import Event, Service, SyncWork, Work
import tidings.cli.run

tidings.cli.run.ENDING_SECONDS = 1.0

class Placed(Event, name="run.order.placed"):
    how: str

service = Service("stuck", store="sqlite:///stuck.db", grace=timedelta(seconds=0.2))

@service.subscribe(Placed)
def plain(event: Placed, work: SyncWork) -> None:
    open("plain", "w").close()
    while event.how == "plain":
        threading.Event().wait(60)

@service.subscribe(Placed)
async def swallowing(event: Placed, work: Work) -> None:
    open("swallowing", "w").close()
    while event.how == "swallowing":
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def publish() -> None:
    async with service.running(consumers=False):
        await service.publish(Placed(how=sys.argv[1]))

if __name__ == "__main__":
    asyncio.run(publish())
'''


@pytest.mark.parametrize(("how", "code"), [("plain", 0), ("swallowing", 75)])
def test_a_handler_that_never_ends_does_not_keep_the_process(tmp_path: Path, how: str, code: int) -> None:
    (tmp_path / "stuck.py").write_text(STUCK, "utf-8")
    subprocess.run([sys.executable, "stuck.py", how], cwd=tmp_path, check=True, timeout=60)
    command = [sys.executable, "-m", "tidings.cli", "run", "stuck:service"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(3000):
            if (tmp_path / how).exists():
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        try:
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == code, said
    assert ("the process ends without it" in said) is (code != 0)
