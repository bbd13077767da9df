"""Django: events in `atomic`, migrations, handlers that write through the connection, the admin of dead letters."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import django
import pytest
from django.conf import settings

from tidings import RetryPolicy, Service, SyncTransaction, SyncWork

APPS = ["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages",
        "django.contrib.sessions", "tidings.integrations.django"]  # fmt: skip
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware",
              "django.contrib.auth.middleware.AuthenticationMiddleware",
              "django.contrib.messages.middleware.MessageMiddleware"]  # fmt: skip
CONTEXT = ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
           "django.contrib.messages.context_processors.messages"]  # fmt: skip
SOON = RetryPolicy(attempts=2, backoff=timedelta(milliseconds=10))

if not settings.configured:
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "set by each test"}},
        INSTALLED_APPS=APPS,
        MIDDLEWARE=MIDDLEWARE,
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
                    "OPTIONS": {"context_processors": CONTEXT}}],
        ROOT_URLCONF="django_urls_of_the_tests",
        SECRET_KEY="only for these tests",
        ALLOWED_HOSTS=["testserver"],
        STATIC_URL="static/",
        USE_TZ=True,
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    )  # fmt: skip
    django.setup()

from django.contrib import admin  # noqa: E402
from django.db import DatabaseError, connection, connections, transaction  # noqa: E402
from django.urls import path  # noqa: E402

from tidings.integrations.django import django_executor, publish  # noqa: E402


@pytest.fixture
def database(postgres_url: str) -> Iterator[None]:
    """Django's default database is the test's, in every thread."""
    parts = urlsplit(postgres_url)
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    where = {"NAME": parts.path[1:], "USER": parts.username or "", "PASSWORD": parts.password or "", "HOST": host,
             "PORT": str(parts.port or "")}  # fmt: skip
    connections.settings["default"].update(where)
    connection.settings_dict.update(where)
    yield
    connections.close_all()


@pytest.fixture
def shop(service: Service, database: None) -> Service:
    return service


def said(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def numbers() -> list[int]:
    return [row[0] for row in said("SELECT (data->>'number')::int FROM tidings.events ORDER BY position")]


def test_ten_events_are_one_insert_before_the_commit(shop, Placed) -> None:  # noqa: N803
    with transaction.atomic():
        for number in range(10):
            publish(Placed(order_id="1", number=number), service=shop)
        said("INSERT INTO orders (id) VALUES ('1')")
        assert numbers() == []
    assert numbers() == list(range(10))
    assert said("SELECT count(DISTINCT (xmin::text, cmin::text)) FROM tidings.log") == [(1,)]
    with transaction.atomic():
        publish(Placed(order_id="1", number=10), service=shop)
    assert numbers() == list(range(11))


def test_a_rollback_takes_the_events_along(shop, Placed, undone) -> None:  # noqa: N803
    with undone(), transaction.atomic():
        publish(Placed(order_id="1", number=1), service=shop)
        raise LookupError
    with transaction.atomic():
        publish(Placed(order_id="1", number=2), service=shop)
        transaction.set_rollback(True)
    with transaction.atomic():
        pass
    assert numbers() == []


def test_a_savepoint_rolled_back_takes_only_its_events_along(shop, Placed, undone) -> None:  # noqa: N803
    with transaction.atomic():
        publish(Placed(order_id="1", number=1), service=shop)
        with transaction.atomic():
            publish(Placed(order_id="1", number=2), service=shop)
            with undone(), transaction.atomic():
                publish(Placed(order_id="1", number=3), service=shop)
                raise LookupError
        with undone(), transaction.atomic():
            with transaction.atomic():
                publish(Placed(order_id="1", number=4), service=shop)
            raise LookupError
        sid = transaction.savepoint()
        publish(Placed(order_id="1", number=5), service=shop)
        transaction.savepoint_rollback(sid)
        publish(Placed(order_id="1", number=6), service=shop)
    assert numbers() == [1, 2, 6]
    assert said("SELECT count(DISTINCT (xmin::text, cmin::text)) FROM tidings.log") == [(1,)]


def test_outside_a_transaction_and_without_autocommit(shop, Placed) -> None:  # noqa: N803
    publish(Placed(order_id="1", number=1), service=shop)
    assert numbers() == [1]
    transaction.set_autocommit(False)
    try:
        publish(Placed(order_id="1", number=2), service=shop)
        transaction.rollback()
        publish(Placed(order_id="1", number=3), service=shop)
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert numbers() == [1, 3]


def test_a_failed_insert_rolls_back(shop, Placed) -> None:  # noqa: N803
    elsewhere = Service("small", store="sqlite:///:memory:")
    with pytest.raises(DatabaseError, match="outbox_row"), transaction.atomic():  # noqa: PT012
        said("INSERT INTO orders (id) VALUES ('1')")
        publish(Placed(order_id="1"), service=elsewhere)
    assert said("SELECT count(*) FROM orders") == [(0,)]
    publish(Placed(order_id="1", number=2), service=shop)
    assert numbers() == [2]


def test_migrate_makes_the_log_and_may_come_first(database, postgres_url, Placed) -> None:  # noqa: N803
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("makemigrations", "tidings", check=True, dry_run=True, verbosity=0)
    publish(Placed(order_id="1", number=7), service=(made := Service("fresh", store=postgres_url, migrate=False)))
    assert numbers() == [7]

    async def opens() -> None:
        async with made.running(consumers=False):
            pass

    asyncio.run(opens())
    call_command("migrate", "tidings", "zero", verbosity=0)
    call_command("migrate", "tidings", verbosity=0)
    assert numbers() == [7]


async def test_a_handler_writes_through_django(shop, Placed, Charged, log, until) -> None:  # noqa: N803
    tries: list[str] = []

    @shop.subscribe(Placed, ordered=True, retry=SOON, executor=django_executor())
    def charge(event: Placed) -> None:  # type: ignore[valid-type]
        said(f"INSERT INTO charges (order_id, attempt) VALUES ('{event.order_id}', 1)")
        publish(Charged(order_id=event.order_id))
        with pytest.raises(LookupError), transaction.atomic():  # noqa: PT012
            publish(Charged(order_id="of a savepoint"))
            raise LookupError
        tries.append(event.order_id)
        if event.order_id == "2" and tries.count("2") == 1:
            raise ValueError

    @shop.subscribe(Placed, executor=django_executor())
    def note(event: Placed, tx: SyncTransaction) -> None:  # type: ignore[valid-type]
        tx.execute("INSERT INTO orders (id) VALUES ($1)", event.order_id)
        said(f"UPDATE orders SET id = id || '!' WHERE id = '{event.order_id}'")

    @shop.subscribe(Charged, executor=django_executor())
    def receipt(event: Charged, work: SyncWork) -> None:  # type: ignore[valid-type]
        with work.finish():
            said(f"INSERT INTO charges (order_id, attempt) VALUES ('{event.order_id}', 0)")

    async with shop:
        for number in range(4):
            await shop.publish(Placed(order_id=str(number)))
        async with asyncio.timeout(30):
            while (await log.rows("SELECT count(*) FROM charges"))[0][0] < 8 or len(await log.orders()) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert await log.orders() == ["0!", "1!", "2!", "3!"]
    for attempt in (0, 1):
        rows = await log.rows(f"SELECT order_id FROM charges WHERE attempt = {attempt} ORDER BY 1")
        assert rows == [("0",), ("1",), ("2",), ("3",)]
    charged = await log.rows("SELECT key, causation IS NOT NULL FROM tidings.log WHERE type = 'shop.order.charged'")
    assert sorted(charged) == [("0", True), ("1", True), ("2", True), ("3", True)]
    assert tries.count("2") == 2


# The admin.

urlpatterns = [path("admin/", admin.site.urls)]


@pytest.fixture
def letters(database: None, postgres_url: str, Placed: Any) -> list[str]:  # noqa: N803
    """Three dead letters; ids as the admin has them."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    shop = Service("shop", store=postgres_url)

    @shop.subscribe(Placed, retry=RetryPolicy(attempts=1), pause_after=None)
    async def breaks(event: Placed) -> None:  # type: ignore[valid-type]
        raise ValueError(f"cannot {event.order_id} <b>")

    async def run() -> None:
        async with shop:
            for number in range(3):
                await shop.publish(Placed(order_id=str(number)))
            async with asyncio.timeout(20):
                while (await shop.fetch_value("SELECT count(*) FROM tidings.held WHERE state = 'dead'")) < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    asyncio.run(run())
    return [row[0] for row in said("SELECT id FROM tidings.dead_letters ORDER BY position")]


@pytest.fixture
def browse(letters: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a client that is logged in as somebody with some permissions."""
    import sys

    from django.contrib.auth.models import Permission, User
    from django.test import Client

    monkeypatch.setitem(sys.modules, "django_urls_of_the_tests", sys.modules[__name__])

    def log_in(name: str, *permissions: str) -> Client:
        user = User.objects.create_user(name, is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=[f"{one}_deadletter" for one in permissions]))
        client = Client()
        client.force_login(user)
        return client

    return log_in


PAGE = "/admin/tidings/deadletter/"


def states() -> list[str]:
    return [row[0] for row in said("SELECT state FROM tidings.held ORDER BY position")]


def test_the_admin_lists_letters_and_shows_their_attempts(browse, letters) -> None:
    client = browse("ada", "view")
    page = client.get(PAGE)
    assert page.status_code == 200
    assert page.content.decode().count("shop.order.placed") >= 3
    detail = client.get(f"{PAGE}{letters[0].replace('_', '_5F')}/change/").content.decode()
    assert "ValueError" in detail
    assert "cannot 0 &lt;b&gt;" in detail
    assert "Traceback" in detail
    assert client.get(f"{PAGE}add/").status_code == 403


def test_a_letter_whose_failure_holds_a_nul_is_shown_with_the_others(browse, letters) -> None:
    nul = "convert_to(replace(convert_from(failures, 'UTF8'), 'cannot 0', 'cannot \\u0000'), 'UTF8')"
    said(f"UPDATE tidings.held SET failures = {nul}")
    client = browse("ada", "view")
    assert client.get(PAGE).status_code == 200
    detail = client.get(f"{PAGE}{letters[0].replace('_', '_5F')}/change/").content.decode()
    assert "cannot \ufffd &lt;b&gt;" in detail


def test_redriving_needs_its_permission(browse, letters) -> None:
    chosen = {"action": "redrive", "_selected_action": letters[:2]}
    browse("ada", "view").post(PAGE, chosen)
    assert states() == ["dead"] * 3
    browse("bob", "view", "redrive").post(PAGE, chosen)
    assert states() == ["retry", "retry", "dead"]
    assert said("SELECT DISTINCT actor FROM tidings.held WHERE state = 'retry'") == [("bob",)]


def test_discarding_asks_for_a_reason(browse, letters) -> None:
    chosen = {"action": "discard", "_selected_action": letters[1:]}
    browse("ada", "view", "redrive").post(PAGE, {**chosen, "reason": "not mine to give up"})
    client = browse("bob", "view", "discard")
    assert 'name="reason"' in client.post(PAGE, chosen).content.decode()
    assert "give both" in client.post(PAGE, {**chosen, "reason": " "}).content.decode()
    assert states() == ["dead"] * 3
    assert client.post(PAGE, {**chosen, "reason": "test data"}).status_code == 302
    assert states() == ["dead", "discarded", "discarded"]
    assert said("SELECT DISTINCT actor, reason FROM tidings.held WHERE state = 'discarded'") == [("bob", "test data")]


async def test_a_commit_as_sql_is_noticed_and_nothing_is_done_twice(service, database, Placed, log) -> None:  # noqa: N803
    tried: list[str] = []

    @service.subscribe(Placed, ordered=True, retry=SOON, executor=django_executor())
    def charge(event: Placed) -> None:  # type: ignore[valid-type]
        tried.append(event.order_id)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO charges (order_id, attempt) VALUES (%s, 1)", [event.order_id])
            cursor.execute("COMMIT")
        if event.order_id == "raises":
            raise ValueError("after it")

    async with service, asyncio.timeout(20):
        await service.publish(Placed(order_id="raises"))
        await service.publish(Placed(order_id="returns"))
        while len(held := await log.rows("SELECT attempts, reason FROM tidings.held WHERE state = 'dead'")) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert all(attempts == 1 and "take the COMMIT out" in reason for attempts, reason in held)
    assert sorted(tried) == ["raises", "returns"]
    assert await log.rows("SELECT order_id, count(*) FROM charges GROUP BY 1 ORDER BY 1") == [
        ("raises", 1),
        ("returns", 1),
    ]
