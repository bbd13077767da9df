"""The suite of a place for blobs: what is under a key stays, and of many writers one wins."""

# ruff: noqa: D102 - the names of the tests say what they do

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest

from tidings.blobs import Blobs
from tidings.testing.conformance.transports.opening import real_world
from tidings.world import World

ALIKE = (
    "a", "A", "a/b", "a/B", "a.blob", "a.blob/c", "a/b/c.json", "a%2fb", "a:b", "a=b&c=d?e#f", "a+b", "~a/$b/'c'",
    "x" * 300, "x" * 299 + "y", "outcomes/billing/0af76519-16cd-83dd-8448-eb211c80319c",
)  # fmt: skip
"""Keys that a careless writer of file names or of addresses takes for one another."""


class BlobsSuite:
    """Subclass it, say `open_blobs` and `url`, and pytest runs the rest."""

    open_blobs: ClassVar[Callable[[str, World], Blobs]]
    """The backend's own function, as `staticmethod(open_blobs)`."""

    def url(self, folder: Path) -> str:
        """Return the URL of an empty place of this test's own."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, url: str) -> AsyncIterator[Blobs]:
        """Open the place of a URL."""
        blobs = type(self).open_blobs(url, real_world())
        await blobs.open()
        try:
            yield blobs
        finally:
            await blobs.close()

    async def test_what_was_created_is_read_by_others_and_later(self, tmp_path: Path) -> None:
        url = self.url(tmp_path)
        async with self.opened(url) as one, self.opened(url) as other:
            assert await one.create("claims/1", b"what it says") == b"what it says"
            assert await other.read("claims/1") == b"what it says"
        async with self.opened(url) as later:
            assert await later.read("claims/1") == b"what it says"

    async def test_where_nothing_is_nothing_is_read(self, tmp_path: Path) -> None:
        async with self.opened(self.url(tmp_path)) as blobs:
            assert await blobs.read("claims/1") is None
            await blobs.create("claims/1/more", b"x")
            assert await blobs.read("claims/1") is None
            assert await blobs.read("claims") is None

    async def test_what_is_there_stays_and_is_told(self, tmp_path: Path) -> None:
        async with self.opened(self.url(tmp_path)) as blobs:
            assert await blobs.create("outcome", b"first") == b"first"
            assert await blobs.create("outcome", b"second") == b"first"
            assert await blobs.read("outcome") == b"first"

    async def test_of_many_writers_one_wins_and_all_are_told_its_bytes(self, tmp_path: Path) -> None:
        url = self.url(tmp_path)
        async with self.opened(url) as one, self.opened(url) as other:
            for key in ("a/race", "b/race", "c/race"):
                tries = [(one, other)[number % 2].create(key, b"by %d" % number) for number in range(20)]
                told = set(await asyncio.gather(*tries))
                assert len(told) == 1
                assert await one.read(key) == told.pop()

    async def test_no_key_is_taken_for_another(self, tmp_path: Path) -> None:
        async with self.opened(self.url(tmp_path)) as blobs:
            for key in ALIKE:
                assert await blobs.create(key, key.encode()) == key.encode()
            for key in ALIKE:
                assert await blobs.read(key) == key.encode()

    @pytest.mark.parametrize("size", [0, 1, 100_000, 1_200_000])
    async def test_any_bytes_of_any_size(self, tmp_path: Path, size: int) -> None:
        data = Random(size).randbytes(size)
        async with self.opened(self.url(tmp_path)) as blobs:
            assert await blobs.create("some", data) == data
            assert await blobs.create("some", b"other") == data
            assert await blobs.read("some") == data

    async def test_closing_twice_is_once_and_it_opens_again(self, tmp_path: Path) -> None:
        async with self.opened(self.url(tmp_path)) as blobs:
            await blobs.create("some", b"x")
            await blobs.close()
            await blobs.close()
            await blobs.open()
            assert await blobs.read("some") == b"x"
