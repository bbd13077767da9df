"""What only a folder has to see to: complete or not there, on the disk when told so, half files swept."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adexport.adapters import local_files
from adexport.adapters.local_files import LocalFiles
from adexport.errors import StorageError


async def test_equal_content_from_many_writers_is_one_file(tmp_path):
    files = LocalFiles(tmp_path)
    digests = await asyncio.gather(*(files.put([b"same" * 1000]) for _ in range(20)))
    assert len({digest for (digest,) in digests}) == 1
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [b"same" * 1000]


async def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def cut(source, target):
        raise OSError(28, "No space left on device")

    files = LocalFiles(tmp_path)
    monkeypatch.setattr(local_files.os, "replace", cut)
    with pytest.raises(StorageError, match="No space left"):
        await files.put([b"content"])
    monkeypatch.undo()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert await files.put([b"content"])


async def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(local_files.os, "fsync", lambda fd, real=os.fsync: (steps.append("sync"), real(fd)))
    monkeypatch.setattr(local_files.os, "replace", lambda a, b, real=os.replace: (steps.append("name"), real(a, b)))
    await LocalFiles(tmp_path).put([b"content"])
    assert steps == ["sync", "name", "sync"]


async def test_only_what_was_used_last_before_is_forgotten(tmp_path):
    files = LocalFiles(tmp_path)
    old, kept, used, put, new = await files.put([b"old", b"kept", b"used", b"put", b"new"])
    for digest in (old, kept, used, put):
        os.utime(await files.local(digest), (1, 1))
    half = (await files.local(old)).with_name(".new-left")
    half.write_bytes(b"half")
    os.utime(half, (1, 1))
    assert await files.present([used, "0" * 64]) == {used}
    await files.put([b"put"])
    assert await files.forget(datetime.now(UTC) - timedelta(days=1), {kept}) == 2
    assert await files.present([old, kept, used, put, new]) == {kept, used, put, new}
    assert not half.exists()


@pytest.mark.parametrize("before", [True, False])
async def test_what_is_put_while_it_is_forgotten_is_there(tmp_path, monkeypatch, before):
    files, rename = LocalFiles(tmp_path), Path.rename
    (digest,) = await files.put([b"same"])
    os.utime(await files.local(digest), (1, 1))
    puts = []

    def meanwhile(self, target):
        if before:
            puts.extend(files._put_all([b"same"]))
        moved = rename(self, target)
        if not before:
            puts.extend(files._put_all([b"same"]))
        return moved

    monkeypatch.setattr(Path, "rename", meanwhile)
    await files.forget(datetime.now(UTC) - timedelta(days=1), ())
    monkeypatch.undo()
    assert digest in puts
    assert await files.read(digest) == b"same"
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 1
