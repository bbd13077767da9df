"""The content-addressed folder: complete or not there, equal content once, no way out of the folder."""

import asyncio
import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adexport.adapters import local_files
from adexport.adapters.local_files import FileMissingError, LocalFiles, StorageError


async def test_content_is_found_by_its_digest(tmp_path):
    files = LocalFiles(tmp_path / "files")
    digests = await files.put([b"one", b"two", b"one"])
    assert digests == [hashlib.sha256(each).hexdigest() for each in (b"one", b"two", b"one")]
    assert await files.read(digests[1]) == b"two"
    assert (await files.local(digests[0])).read_bytes() == b"one"
    assert await files.present([*digests, "0" * 64]) == set(digests)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 2


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


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/x", "", "0" * 64])
async def test_only_a_stored_digest_names_a_file(tmp_path, name):
    files = LocalFiles(tmp_path)
    with pytest.raises(FileMissingError):
        await files.read(name)
    with pytest.raises(FileMissingError):
        await files.local(name)


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


async def test_of_many_that_claim_a_folder_one_owns_it_for_good(tmp_path):
    names = [f"store-{number}" for number in range(16)]
    owners = await asyncio.gather(*(LocalFiles(tmp_path).claim(name) for name in names))
    assert len(set(owners)) == 1
    assert owners[0] in names
    assert await LocalFiles(tmp_path).claim("another") == owners[0]
    assert len(list(tmp_path.iterdir())) == 1, "something was left behind"


async def test_cleaning_leaves_the_owner(tmp_path):
    files = LocalFiles(tmp_path)
    await files.claim("store")
    await files.forget(datetime.now(UTC) + timedelta(days=1), set())
    assert await files.claim("another") == "store"
