"""Data that is too large for a broker waits among the blobs, and comes back as it was."""

import asyncio
import hashlib
from pathlib import Path

import pytest
from waiting import until

from tidings import Event, Service, Transaction, operations
from tidings.operations import Filter
from tidings.rows import LANDING

LARGE = "Größe " * 120_000


class Drawn(Event, name="cloud.drawn", key="design"):
    design: str
    picture: str


def services(name: str, folder: Path, *, blobs: tuple[bool, bool] = (True, True)) -> tuple[Service, Service, list[str]]:
    """Return who draws, who looks, and what was seen."""
    place = f"file://{folder}/blobs"
    draws = Service(
        "draws", store=f"sqlite:///{folder}/draws.db", transport=f"memory://{name}?in={name}-back",
        blobs=place if blobs[0] else None,
    )  # fmt: skip
    draws.register(Drawn)
    looks = Service(
        "looks", store=f"sqlite:///{folder}/looks.db", transport=f"memory://{name}-back?in={name}",
        blobs=place if blobs[1] else None,
    )  # fmt: skip
    seen: list[str] = []

    @looks.subscribe(Drawn, ordered=True, start="beginning")
    async def look(event: Drawn, tx: Transaction) -> None:
        seen.append(event.picture)

    return draws, looks, seen


async def test_large_data_arrives_whole_and_small_data_without_a_detour(tmp_path: Path) -> None:
    draws, looks, seen = services("claims-whole", tmp_path)
    async with draws, looks:
        for picture in ("small", LARGE, "after"):
            await draws.publish(Drawn(design="d", picture=picture))
        await until(lambda: asyncio.sleep(0, seen), lambda found: len(found) == 3)
    assert seen == ["small", LARGE, "after"]
    stored = [each for each in (tmp_path / "blobs").rglob("*") if each.is_file()]
    assert [hashlib.sha256(each.read_bytes()).hexdigest() == each.stem for each in stored] == [True]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [("change", "its digest differs"), ("remove", "is gone from there"), ("none", "has no blobs")],
)
async def test_data_that_is_not_to_be_had_is_a_dead_letter_of_landing(tmp_path: Path, spoil: str, reason: str) -> None:
    draws, looks, seen = services(f"claims-{spoil}", tmp_path, blobs=(True, spoil != "none"))
    async with draws:
        await draws.publish(Drawn(design="d", picture=LARGE))
        said = draws.store.reading
        await until(lambda: said.pending("draws:relay", None), lambda found: found[0] == 0)
    (stored,) = [each for each in (tmp_path / "blobs").rglob("*") if each.is_file()]
    stored.chmod(0o600)
    if spoil == "change":
        stored.write_bytes(stored.read_bytes()[:-1] + b" ")
    elif spoil == "remove":
        stored.unlink()
    async with looks:
        (letter,) = await until(lambda: operations.letters(looks.store, Filter()), len)
        assert letter.subscription == LANDING
        assert reason in letter.reason
    assert seen == []


async def test_nothing_is_acknowledged_while_the_blobs_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws, looks, seen = services("claims-away", tmp_path)
    monkeypatch.setattr("tidings.consuming.landing.PAUSE_SECONDS", 0.1)
    async with draws:
        await draws.publish(Drawn(design="d", picture=LARGE))
        await until(lambda: draws.store.reading.pending("draws:relay", None), lambda found: found[0] == 0)
    (stored,) = [each for each in (tmp_path / "blobs").rglob("*") if each.is_file()]
    away = stored.rename(tmp_path / "away")
    stored.mkdir()  # it can be found, and not be read
    async with looks:
        await asyncio.sleep(0.6)
        assert (seen, await operations.letters(looks.store, Filter())) == ([], [])
        stored.rmdir()
        away.rename(stored)
        await until(lambda: asyncio.sleep(0, seen), len)
    assert seen == [LARGE]


async def test_only_the_key_of_data_that_cannot_be_read_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws, looks, seen = services("claims-key", tmp_path)
    monkeypatch.setattr("tidings.consuming.landing.PAUSE_SECONDS", 0.1)
    async with draws:
        for design, picture in (("d", LARGE), ("d", "after"), ("e", "another"), ("f", "third")):
            await draws.publish(Drawn(design=design, picture=picture))
        await until(lambda: draws.store.reading.pending("draws:relay", None), lambda found: found[0] == 0)
    (stored,) = [each for each in (tmp_path / "blobs").rglob("*") if each.is_file()]
    away = stored.rename(tmp_path / "away")
    stored.mkdir()
    async with looks:
        await until(lambda: asyncio.sleep(0, seen), lambda found: len(found) >= 2)
        assert sorted(seen) == ["another", "third"]
        stored.rmdir()
        away.rename(stored)
        await until(lambda: asyncio.sleep(0, seen), lambda found: len(found) >= 4)
    assert seen[2:] == [LARGE, "after"]
