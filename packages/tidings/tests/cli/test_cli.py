"""The command line as it is used: real processes on real files, right and wrong input."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHOP = '''
"""A small service, as a user would write it."""
import asyncio, os, sys
from datetime import timedelta
from tidings import Event, RetryPolicy, Service, Transaction

class Placed(Event, name="shop.order.placed", key="order_id"):
    order_id: str
    amount: int

class Charged(Event, name="shop.order.charged", key="order_id", keep=timedelta(seconds=1)):
    order_id: str

service = Service("billing", store="sqlite+apsw:///shop.db")
service.schema("CREATE TABLE IF NOT EXISTS charges (order_id TEXT, amount INTEGER)")

@service.subscribe(Placed, ordered=True, retry=RetryPolicy(attempts=2, backoff=timedelta(milliseconds=5)))
async def charge(event: Placed, tx: Transaction) -> None:
    if event.amount < 0 and not os.path.exists("repaired"):
        raise ValueError("refused \\x1b[31m by the bank")
    await tx.execute("INSERT INTO charges VALUES ($1, $2)", event.order_id, event.amount)
    tx.publish(Charged(order_id=event.order_id))

async def publish(amounts: list[int]) -> None:
    async with service.running(consumers=False):
        for amount in amounts:
            envelope = await service.publish(Placed(order_id=f"o{abs(amount)}", amount=amount))
            print(envelope.id)

async def work(events: int) -> None:
    """Handle until nothing of so many events is pending."""
    async with service:
        async with asyncio.timeout(20):
            while True:
                done = await service.fetch_value("SELECT count(*) FROM charges")
                dead = await service.fetch_value("SELECT count(*) FROM tidings_held WHERE state <> 'retry'")
                if done + dead >= events:
                    return
                await asyncio.sleep(0.01)

if __name__ == "__main__":
    asyncio.run(publish([int(one) for one in sys.argv[2:]]) if sys.argv[1] == "publish" else work(int(sys.argv[2])))
'''


class Shop:
    """A folder with a service, and the commands that are run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "shop.py").write_text(SHOP, "utf-8")

    def python(self, *args: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, *args], cwd=self.folder, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.split()

    def publish(self, *amounts: int) -> list[str]:
        return self.python("shop.py", "publish", *map(str, amounts))

    def work(self, events: int) -> None:
        self.python("shop.py", "work", str(events))

    def run(self, *args: str, answer: str = "", store: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        known = {"TIDINGS_STORE": "sqlite+apsw:///shop.db"} if store else {}
        clean = {name: value for name, value in os.environ.items() if name not in ("TIDINGS_STORE", "NO_COLOR")}
        return subprocess.run(
            [sys.executable, "-m", "tidings.cli", *args],
            cwd=self.folder,
            env={**clean, **known, **env},
            input=answer,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *args: str) -> Any:
        done = self.run(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop with one event, beside modules that are wrong each in its way."""
    shop = Shop(tmp_path_factory.mktemp("wrong"))
    shop.publish(1)
    (shop.folder / "broken.py").write_text("1 / 0\n")
    (shop.folder / "halfway.py").write_text("import not_installed\n")
    (shop.folder / "wrong.py").write_text("import tidings\nservice = tidings.Service('x', store='no-such-store://x')\n")
    (shop.folder / "hintless.py").write_text(SHOP.replace("tx: Transaction", "tx"))
    return shop


def failed(done: subprocess.CompletedProcess[str], code: int) -> tuple[str, str, str]:
    """Return the three lines of a failure, having checked that they are the last three."""
    assert done.returncode == code, done.stderr
    what, why, do = done.stderr.splitlines()[-3:]
    assert what.startswith("Error: ")
    assert why.startswith("Why: ")
    assert do.startswith("What to do: ")
    return what, why, do


def test_an_event_is_found_in_every_state(shop: Shop) -> None:
    good, bad, follower = shop.publish(1, -2, 2)
    (pending,) = shop.json("where", good)
    assert pending["event"]["data"] == {"order_id": "o1", "amount": 1}
    assert [(one["subscription"], one["state"]) for one in pending["places"]] == [("charge", "pending")]
    assert "no worker of billing is alive" in pending["places"][0]["why"]
    shop.work(3)
    states = {event: shop.json("where", event)[0]["places"][0]["state"] for event in (good, bad, follower)}
    assert states == {good: "handled", bad: "dead", follower: "behind"}
    (caused,) = shop.json("where", good)[0]["caused"]
    assert caused["type"] == "shop.order.charged"
    assert shop.json("where", caused["id"])[0]["cause"]["id"] == good
    text = shop.run("where", good).stdout
    assert f"\ncaused    shop.order.charged {caused['id']}\n" in text
    text = shop.run("where", caused["id"]).stdout
    assert text.endswith("\n\ncharge: not its own\n    it does not subscribe to shop.order.charged\n\n")
    text = shop.run("where", follower).stdout
    assert "charge: behind" in text
    assert f"its key o2 is held by event {bad} at position 2, which is dead" in text


def test_an_unknown_event_is_told_as_such(shop: Shop) -> None:
    shop.publish(1)
    what, why, _ = failed(shop.run("where", "no-such-id"), 1)
    assert what == "Error: Event no-such-id is not known."
    assert "retention has ended" in why
    done = shop.run("where", "no-such-id", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, [])


def test_dead_letters_are_listed_shown_redriven_and_discarded(shop: Shop) -> None:
    shop.publish(-1, 1, -2, 3)
    shop.work(4)
    listed = shop.json("dlq", "list")
    assert [(one["subscription"], one["attempts"], one["event"]["key"]) for one in listed] == [
        ("charge", 2, "o1"),
        ("charge", 2, "o2"),
    ]
    assert [one["attempt"] for one in listed[0]["failures"]] == [1, 2]
    assert "raise ValueError" in listed[0]["failures"][0]["traceback"]
    first = listed[0]["event"]["id"]
    shown = shop.run("dlq", "show", first).stdout
    for part in ('"amount": -1', "correlation", "Attempt 1,", "Attempt 2,", "raise ValueError", "keep", "forever"):
        assert part in shown
    assert json.loads(shop.run("dlq", "show", first, "--json").stdout)[0]["event"] == listed[0]["event"]
    assert [one["event"]["key"] for one in shop.json("dlq", "list", "--key", "o2")] == ["o2"]
    assert shop.json("dlq", "list", "--error", "REFUSED", "--type", "shop.order.charged") == []
    assert shop.json("dlq", "list", "--since", "2030-01-01T00:00:00Z") == []

    done = shop.run("dlq", "discard", "--key", "o2", "--reason", "test order", "--actor", "ann", "--yes")
    assert (done.returncode, done.stdout.strip()) == (0, "1 discarded.")
    assert "1 × shop.order.placed of charge" in done.stderr
    (discarded,) = shop.json("dlq", "list", "--state", "discarded")
    assert (discarded["actor"], discarded["reason"]) == ("ann", "test order")

    (shop.folder / "repaired").touch()
    assert shop.json("dlq", "redrive", "--dry-run") == {"done": 1, "changed": 0, "refused": [], "dry_run": True}
    assert shop.run("dlq", "redrive", "--yes").stdout.strip() == "1 redriven."
    shop.work(4)
    assert shop.json("dlq", "list") == []
    assert shop.json("where", first)[0]["places"][0]["state"] == "handled"


def test_a_redrive_asks_and_takes_no_for_an_answer(shop: Shop) -> None:
    shop.publish(-1)
    shop.work(1)
    for answer in ("n\n", ""):
        done = shop.run("dlq", "redrive", answer=answer)
        assert "To be redriven: 1 × shop.order.placed of charge" in done.stderr
        _, _, do = failed(done, 1)
        assert "Nothing was changed" in do
    assert len(shop.json("dlq", "list")) == 1
    assert shop.run("dlq", "redrive", answer="y\n").stdout.strip() == "1 redriven."
    assert shop.json("dlq", "list") == []
    assert shop.run("dlq", "redrive").stdout.strip() == "0 redriven."  # nothing to do, so nothing to ask


def test_subscriptions_are_listed_paused_resumed_and_forgotten(shop: Shop) -> None:
    shop.publish(1, 2)
    (one,) = shop.json("subscription", "list")
    assert (one["name"], one["pending"], one["paused_by"]) == ("charge", 2, None)
    done = shop.run("subscription", "pause", "charge", "--reason", "the bank is down", "--actor", "ann")
    assert done.stdout.strip() == "charge is paused by ann: the bank is down"
    assert "paused by ann: the bank is down" in shop.run("subscription", "list").stdout
    assert shop.run("subscription", "resume", "charge").returncode == 0
    failed(shop.run("subscription", "forget", "charge", answer="n\n"), 1)
    done = shop.run("subscription", "forget", "charge", "--yes")
    assert "2 pending" in done.stderr
    assert shop.json("subscription", "list") == []
    for command in (["pause", "nope", "--reason", "x"], ["resume", "nope"], ["forget", "nope", "--yes"]):
        what, why, _ = failed(shop.run("subscription", *command), 1)
        assert what == f"Error: `tidings subscription {command[0]}` failed."
        assert "no subscription 'nope'" in why


def test_the_store_is_shown_migrated_and_maintained(shop: Shop) -> None:
    listed = shop.run("store", "migrate", "--list").stdout
    assert "0001_log" in listed
    assert "missing" in listed
    printed = shop.run("store", "migrate", "--print").stdout
    assert "CREATE TABLE tidings_log" in printed
    assert not (shop.folder / "shop.db").exists()
    assert shop.run("store", "migrate").stdout.startswith("Applied: 0001_log")
    assert shop.run("store", "migrate").stdout.strip() == "Nothing to apply: the store is up to date."
    assert shop.run("store", "migrate", "--print").stdout == ""
    shop.publish(1)
    shop.work(1)
    state = shop.json("store", "status")
    assert (state["head"], state["workers"], state["store"]["lanes"]) == (2, [], 16)
    shop.python("-c", "import time; time.sleep(1.1)")
    assert shop.json("store", "maintain") == {"dropped": {"1": 1}, "admitted": 0, "left": []}
    assert "1 events" not in shop.run("store", "maintain", "--horizon", "30d").stdout
    assert "No worker is running" in shop.run("store", "status").stdout


def test_tail_prints_what_is_committed(shop: Shop) -> None:
    shop.publish(1)
    done = shop.run("tail", "--after", "0", "--limit", "1", "--json")
    record = json.loads(done.stdout)
    assert (record["position"], record["event"]["key"]) == (1, "o1")
    environment = {**os.environ, "TIDINGS_STORE": "sqlite+apsw:///shop.db"}
    with subprocess.Popen(
        [sys.executable, "-m", "tidings.cli", "tail", "--after", "1", "--limit", "2"],
        cwd=shop.folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as tail:
        shop.publish(2, 3)
        lines = tail.communicate(timeout=20)[0].splitlines()
    assert [line.split()[0] for line in lines] == ["2", "3"]
    assert "shop.order.placed  o3" in lines[1]


def test_the_lock_is_written_and_checked(shop: Shop) -> None:
    _, why, _ = failed(shop.run("subscription", "lock", "shop:service", "--check"), 1)
    assert "tidings.lock does not exist" in why
    assert shop.run("subscription", "lock", "shop:service").stdout.strip() == "tidings.lock written: 1 subscriptions."
    assert shop.run("subscription", "lock", "shop:service", "--check").returncode == 0
    (shop.folder / "shop.py").write_text(SHOP.replace("def charge", "def charge_card"), "utf-8")
    done = shop.run("subscription", "lock", "shop:service", "--check")
    _, why, _ = failed(done, 1)
    assert "vanished: charge" in why
    assert "added: charge_card" in why
    (shop.folder / "tidings.lock").write_text('{"service": "a", "service": "b"}')
    _, why, _ = failed(shop.run("subscription", "lock", "shop:service", "--check"), 2)
    assert "JSON refused" in why


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["where"], 2, "Missing argument 'ID'"),
        (["where", "x", "--nope"], 2, "No such option '--nope'"),
        (["dlq", "discard", "--yes"], 2, "Missing option '--reason'"),
        (["dlq", "discard", "--yes", "--reason", "  "], 1, "in somebody's name and for a reason"),
        (["dlq", "list", "--since", "yesterday"], 2, "'yesterday' is no time; write 2h (ago)"),
        (["dlq", "list", "--since", "2026-11-24T10:00:00"], 2, "has no time zone; add Z"),
        (["dlq", "list", "--state", "gone"], 2, "'gone' is not one of"),
        (["dlq", "list", "--limit", "0"], 2, "0 is not in the range"),
        (["dlq", "redrive", "--rate", "0", "--yes"], 2, "0.0 is not in the range"),
        (["dlq", "show", "no-such-id"], 1, "No subscription holds an event of this id"),
        (["store", "maintain", "--horizon", "soon"], 2, "'soon' is no duration; write 90s, 30min, 2h or 14d"),
        (["where", "x", "--store", "foo://x"], 2, "'foo://x' is not a store this version knows"),
        (["where", "x", "--store", "sqlite://x"], 2, "names no file"),
        (["where", "x", "--store", "sqlite://"], 2, "do: Write sqlite:///file.db, or sqlite:///:memory: for tests."),
        (["where", "x", "--store", "billing.db"], 2, "For a file write sqlite:///billing.db"),
        (["where", "x", "--store", "sqlite:///tmp"], 3, "Why: The file tmp does not exist."),
        (["where", "x", "--store", "foo://u:secret@h/x"], 2, "'foo://…' is not a store"),
        (["where", "x", "--store", "postgresql://u:secret@h:abc/x"], 2, "no number from 1 to 65535"),
        (["tail", "--after", "-5", "--store", "sqlite:///a"], 2, "-5 is not in the range"),
        (["where", "x", "--store", "sqlite:////no/such/file.db"], 3, "/no/such/file.db does not exist"),
        (["where", "x", "--store", "sqlite:///shop.py"], 3, "file is not a database"),
        (["where", "x", "--store", "sqlite:////"], 3, "unable to open database file"),
        (["where", "x", "--store", "sqlite:////tmp"], 3, "unable to open database file"),
        (["store", "status", "--store", "sqlite:///a", "--service", "b:c"], 2, "each names a store; give one"),
        (["where", "x", "--service", "shop"], 2, "not of the form MODULE:SERVICE"),
        (["where", "x", "--service", "nope:service"], 4, "There is no module nope"),
        (["where", "x", "--service", "shop:nope"], 4, "Module shop has no nope"),
        (["where", "x", "--service", "shop:charge"], 4, "of type function, not a Service"),
        (["where", "x", "--service", "shop:service", "--app-dir", "nowhere"], 2, "folder nowhere does not exist"),
        (["where", "x", "--service", "broken:service"], 4, "importing broken raised ZeroDivisionError"),
        (["where", "x", "--service", "halfway:service"], 4, "No module named 'not_installed'"),
        (["where", "x", "--service", "wrong:service"], 4, "'no-such-store://x' is not a store"),
        (["subscription", "lock", "hintless:service"], 4, "annotate"),
        (["run", "shop:service", "--workers", "0"], 2, "0 is not in the range"),
        (["run", "shop:service", "--only", "nothing"], 2, "'nothing' is not one of"),
        (["run", "shop:service", "--only", "relay"], 4, "has no transport"),
        (["dlq", "redrive", "--yes", "--store", "sqlite+apsw:///missing.db"], 3, "missing.db does not exist"),
    ],
)
def test_wrong_input_gets_three_lines_and_a_code(wrong: Shop, args: list[str], code: int, part: str) -> None:
    done = wrong.run(*args)
    lines = " ".join(failed(done, code))
    assert "secret" not in done.stderr
    assert part.lower() in lines.lower()
    assert not (wrong.folder / "missing.db").exists()


def test_no_store_named_is_told_with_every_way_to_name_one(shop: Shop) -> None:
    _, why, _ = failed(shop.run("where", "x", store=False), 2)
    assert "--store URL, --service MODULE:SERVICE or TIDINGS_STORE" in why


def test_a_service_wins_over_the_environment(shop: Shop) -> None:
    (event,) = shop.publish(1)
    done = shop.run("where", event, "--service", "shop:service", TIDINGS_STORE="sqlite:///missing.db")
    assert done.returncode == 0


def test_what_an_event_says_does_not_steer_the_terminal(shop: Shop) -> None:
    (bad,) = shop.publish(-1)
    shop.work(1)
    for args in (["dlq", "list"], ["dlq", "show", bad], ["where", bad], ["dlq", "list", "--json"]):
        assert "\x1b" not in shop.run(*args).stdout
    assert r"refused \x1b[31m by the bank" in shop.run("dlq", "list").stdout


def on_terminal(shop: Shop, *args: str, **env: str) -> str:
    """Run a command whose output is a terminal; return what it shows."""
    mine, theirs = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment = {
        **clean,
        "TIDINGS_STORE": "sqlite+apsw:///shop.db",
        "TERM": "xterm-256color",
        "COLUMNS": "160",
        **env,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tidings.cli", *args], cwd=shop.folder, env=environment, stdout=theirs, stderr=theirs
    ) as running:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(mine, 65536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            shown += part
        assert running.wait(30) == 0
    os.close(mine)
    return shown.decode()


def test_a_terminal_gets_a_rich_table_and_no_color_is_obeyed(shop: Shop) -> None:
    shop.publish(-1)
    shop.work(1)
    coloured = on_terminal(shop, "dlq", "list")
    assert "─" in coloured
    assert "\x1b[" in coloured
    plain = on_terminal(shop, "dlq", "list", NO_COLOR="1")
    assert "\x1b[3" not in plain  # no foreground colours
    assert "─" not in shop.run("dlq", "list").stdout


def test_a_reader_that_leaves_early_gets_no_traceback(shop: Shop) -> None:
    shop.publish(1, 2, 3)
    with subprocess.Popen(
        [sys.executable, "-m", "tidings.cli", "tail", "--after", "0", "--limit", "3"],
        cwd=shop.folder,
        env={**os.environ, "TIDINGS_STORE": "sqlite+apsw:///shop.db", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        tail.stdout.close()
        assert (tail.stderr.read(), tail.wait(30)) == (b"", 1)
