"""What every place of files keeps to: equal content once, nothing else by a digest, what is used is not forgotten."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from adexport.errors import FileMissingError


async def test_content_is_found_by_its_digest(files):
    digests = await files.put([b"one", b"two", b"one", b""])
    assert digests == [hashlib.sha256(each).hexdigest() for each in (b"one", b"two", b"one", b"")]
    assert await files.read(digests[1]) == b"two"
    assert await asyncio.to_thread(files.read_blocking, digests[3]) == b""
    assert (await files.local(digests[0])).read_bytes() == b"one"
    assert await files.present([*digests, "0" * 64]) == set(digests)
    assert digests[1] in files.url(digests[1])


async def test_equal_content_from_many_writers_is_one_file(files):
    digests = await asyncio.gather(*(files.put([b"same" * 1000]) for _ in range(20)))
    assert len({digest for (digest,) in digests}) == 1
    assert await files.read(digests[0][0]) == b"same" * 1000
    assert await files.forget(datetime.now(UTC) + timedelta(minutes=1), set()) == 1


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/x", "", "0" * 64])
async def test_only_a_stored_digest_names_a_file(files, name):
    await files.put([b"content"])
    with pytest.raises(FileMissingError):
        await files.read(name)
    with pytest.raises(FileMissingError):
        await files.local(name)


async def test_only_what_was_used_last_before_is_forgotten(files):
    old, kept, used, put = await files.put([b"old", b"kept", b"used", b"put"])
    await asyncio.sleep(0.05)
    before = datetime.now(UTC)
    await asyncio.sleep(0.05)
    assert await files.present([used, "0" * 64]) == {used}
    (new,) = await files.put([b"new"])
    await files.put([b"put"])
    assert await files.forget(before, {kept}) == 1
    assert await files.present([old, kept, used, put, new]) == {kept, used, put, new}
    assert await files.read(used) == b"used"
    with pytest.raises(FileMissingError):
        await files.read(old)
    assert await files.put([b"old"]) == [old]
    assert await files.read(old) == b"old"


async def test_of_many_that_claim_a_place_one_owns_it_for_good(files):
    names = [f"store-{number}" for number in range(16)]
    owners = await asyncio.gather(*(files.claim(name) for name in names))
    assert len(set(owners)) == 1
    assert owners[0] in names
    assert await files.claim("another") == owners[0]
    await files.forget(datetime.now(UTC) + timedelta(days=2), set())
    assert await files.claim("another") == owners[0]


async def test_what_is_used_while_it_is_forgotten_is_there_or_known_to_be_gone(files):
    """Users and sweepers race: whoever was told that a file is there, finds it there."""
    contents = [b"content %d" % number for number in range(30)]
    digests = await files.put(contents)
    await asyncio.sleep(0.05)
    before = datetime.now(UTC)
    await asyncio.sleep(0.05)
    sweeps = [files.forget(before, set()) for _ in range(2)]
    uses = [files.present([digest]) for digest in digests[:15]]
    puts = [files.put([content]) for content in contents[15:]]
    gathered = await asyncio.gather(*sweeps, *uses, *puts)
    there = {digest for found in gathered[2:] for digest in found}
    assert set(digests[15:]) <= there
    for digest in there:
        assert hashlib.sha256(await files.read(digest)).hexdigest() == digest
