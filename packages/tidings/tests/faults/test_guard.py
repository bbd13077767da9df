"""Who may share a SQLite file: two processes only through a safe library, and never two libraries in one process."""

from pathlib import Path

import pytest
from processes import Processes, wait_for

from tidings import Service, StoreInUseError
from tidings.backends.sqlite import guard, store


def pretend_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the standard library's SQLite count as one with the WAL-reset bug, whichever is installed."""
    old = tuple(int(part) for part in store.StandardConnection.version.split("."))
    monkeypatch.setattr(guard, "SAFE_WITH_SEVERAL", (*old[:2], old[2] + 1))


async def test_two_processes_on_a_library_with_the_wal_bug_are_refused(
    tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = processes.start("guard_holder.py", tmp_path)
    wait_for((tmp_path / "open").exists, 20, processes.output)
    pretend_old(monkeypatch)
    service = Service("guarded", store=f"sqlite:///{tmp_path}/guarded.db")
    with pytest.raises(StoreInUseError) as refused:
        await service.store.open(migrate=True)
    message = str(refused.value)
    assert f"is written by process {other.pid}" in message
    assert "install tidings[apsw] and write sqlite+apsw://" in message
    other.kill()
    other.wait()
    async with service:  # the lock went with the process, by SIGKILL too
        assert await service.fetch_value("SELECT 1") == 1


async def test_two_services_of_one_process_on_a_library_with_the_wal_bug_are_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_old(monkeypatch)
    one, two = (Service(name, store=f"sqlite:///{tmp_path}/one.db") for name in ("one", "two"))
    async with one:
        with pytest.raises(StoreInUseError, match="open for writing in this process already, by another Service"):
            await two.store.open(migrate=True)
    async with two:
        assert await two.fetch_value("SELECT 1") == 1


async def test_two_libraries_in_one_process_are_refused(tmp_path: Path) -> None:
    one = Service("one", store=f"sqlite:///{tmp_path}/one.db")
    two = Service("two", store=f"sqlite+apsw:///{tmp_path}/one.db")
    async with one:
        with pytest.raises(StoreInUseError, match="already open through sqlite3 in this process"):
            await two.store.open(migrate=True)
    async with two:
        assert await two.fetch_value("SELECT 1") == 1


async def test_a_failed_open_leaves_the_file_free(tmp_path: Path) -> None:
    file = tmp_path / "broken.db"
    file.write_bytes(b"this is no database" * 400)
    service = Service("broken", store=f"sqlite:///{file}")
    with pytest.raises(Exception, match="cannot be used"):
        await service.store.open(migrate=True)
    file.unlink()
    async with Service("other", store=f"sqlite+apsw:///{file}") as other:
        assert await other.fetch_value("SELECT 1") == 1
