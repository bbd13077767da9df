"""The commands about projections as they are used: real processes on a real file, right and wrong input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BANK = '''
"""A small bank; the second version counts, too."""
import asyncio, os, sys
from tidings import Event, ReadModel, Service, Transaction

class Deposited(Event, name="bank.deposited", key="account"):
    account: str
    cents: int

service = Service("bank", store="sqlite+apsw:///bank.db")
service.schema("CREATE TABLE IF NOT EXISTS letters (account TEXT)")

def declare(version: int) -> None:
    schema = "CREATE TABLE IF NOT EXISTS {balances} (account TEXT PRIMARY KEY, cents INTEGER)"
    balances = service.projection("balances", version=version, schema=schema)

    @balances.on(Deposited)
    async def deposited(event: Deposited, model: ReadModel) -> None:
        await model.execute("INSERT INTO {balances} VALUES ($1, $2) ON CONFLICT (account) DO UPDATE "
                            "SET cents = {balances}.cents + excluded.cents", event.account, event.cents)

for version in os.environ.get("VERSIONS", "1").split():
    declare(int(version))

@service.subscribe(Deposited, start="beginning")
async def greet(event: Deposited, tx: Transaction) -> None:
    await tx.execute("INSERT INTO letters VALUES ($1)", event.account)

async def main(deposits: int, letters: int) -> None:
    async with service:
        for number in range(deposits):
            await service.publish(Deposited(account=f"a{number}", cents=5))
        async with asyncio.timeout(20):
            while await service.fetch_value("SELECT count(*) FROM letters") < letters or (
                any([(await service.store.reading.pending(one.name, one.types))[0] for one in service.subscriptions])):
                await asyncio.sleep(0.01)

if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
'''


class Bank:
    """A folder with the bank, and the commands that are run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bank.py").write_text(BANK, "utf-8")

    def work(self, deposits: int, letters: int, versions: str = "1") -> None:
        command = [sys.executable, "bank.py", str(deposits), str(letters)]
        environment = {**os.environ, "VERSIONS": versions}
        subprocess.run(command, cwd=self.folder, env=environment, check=True, timeout=60, capture_output=True)

    def run(self, *args: str, code: int = 0, answer: str = "") -> str:
        environment = {**os.environ, "TIDINGS_STORE": "sqlite+apsw:///bank.db", "NO_COLOR": "1"}
        done = subprocess.run(
            [str(Path(sys.executable).with_name("tidings")), *args], cwd=self.folder, env=environment, input=answer,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def shop(tmp_path: Path) -> Bank:
    made = Bank(tmp_path)
    made.work(3, 3)
    return made


def test_a_version_is_built_swapped_in_and_the_old_one_dropped(shop: Bank) -> None:
    assert "balances" in shop.run("projection", "list")
    shop.work(1, 4, "1 2")
    first, second = json.loads(shop.run("projection", "list", "--json"))
    assert (first["version"], first["live"], second["live"]) == (1, True, False)
    assert second["subscription"]["pending"] == 0
    shown = shop.run("projection", "status", "balances")
    assert "balances_v2" in shown
    assert "1, live" in shown
    assert "is live already" in shop.run("projection", "swap", "balances", "--version", "1", code=1)
    assert "read version 2 now" in shop.run("projection", "swap", "balances", "--wait", "5s")
    assert "Version 2 of the projection balances is live" in shop.run(
        "projection", "drop", "balances", "--version", "2", "--yes", code=1
    )
    assert "is dropped" in shop.run("projection", "drop", "balances", "--version", "1", answer="y\n")
    (left,) = json.loads(shop.run("projection", "list", "--json"))
    assert (left["version"], left["live"], left["tables"]) == (2, True, ["balances_v2"])
    shop.work(1, 5, "2")


def test_a_version_that_is_behind_is_not_swapped_in(shop: Bank) -> None:
    shop.work(0, 3, "1 2")
    shop.run("projection", "pause", "balances", "--version", "2", "--reason", "look")
    assert "paused by" in shop.run("projection", "status", "balances")
    shop.run("projection", "rebuild", "balances", "--version", "2", "--yes")
    assert "has not handled 3 events" in shop.run("projection", "swap", "balances", code=1)
    assert "goes on" in shop.run("projection", "resume", "balances", "--version", "2")
    assert "is live, and queries would see it empty" in shop.run(
        "projection", "rebuild", "balances", "--version", "1", "--yes", code=1
    )
    assert "begins again" in shop.run("projection", "rebuild", "balances", "--version", "1", "--in-place", "--yes")


def test_wrong_names_are_told(shop: Bank) -> None:
    assert "knows no projection 'nobody'" in shop.run("projection", "status", "nobody", code=1)
    assert "has no version 7" in shop.run("projection", "drop", "balances", "--version", "7", "--yes", code=1)
    assert "`tidings projection drop balances --version 1`" in shop.run(
        "subscription", "forget", "balances@1", "--yes", code=1
    )


def test_a_projection_is_replayed_by_building_it_anew(shop: Bank) -> None:
    assert "queries would see it empty" in shop.run("replay", "balances", "--yes", code=1)
    assert "balances_v1 (live)" in shop.run("replay", "balances", "--in-place", "--dry-run")
    assert "begins again" not in shop.run("replay", "balances@1", "--in-place", answer="n\n", code=1)
    assert "Version 1 of balances begins again" in shop.run("replay", "balances@1", "--in-place", "--yes")
    shop.work(0, 3)
    shop.work(0, 3, versions="1 2")
    assert "Say balances@1 or balances@2" in shop.run("replay", "balances", "--yes", code=1)
    assert "Version 2 of balances begins again" in shop.run("replay", "balances@2", "--yes")
    shop.work(0, 3, versions="1 2")
    assert "read version 2" in shop.run("projection", "swap", "balances", "--wait", "20s")


def test_a_subscription_is_replayed_from_a_position_or_a_time(shop: Bank) -> None:
    assert "give --after or --since" in shop.run("replay", "greet", code=2)
    assert "3 events after position 0" in shop.run("replay", "greet", "--since", "1h", "--dry-run")
    assert "1 events after position 2" in shop.run("replay", "greet", "--after", "2", answer="n\n", code=1)
    assert "Workers that run it must be started again" in shop.run("replay", "greet", "--after", "1", "--yes")
    shop.work(0, 5)
    assert "nothing after 99" in shop.run("replay", "greet", "--after", "99", code=1)
    assert "tidings projection rebuild" in shop.run("replay", "balances@1", "--after", "0", code=1)
    assert "knows no subscription 'nobody'" in shop.run("replay", "nobody", "--after", "0", code=1)
