"""The URL of a bullmq:// transport, and the ids that BullMQ can have: what is refused, and what is said then."""

import subprocess
import sys

import pytest

from tidings.backends.bullmq.address import Address, read_url
from tidings.backends.bullmq.queue import refused_id
from tidings.errors import ServiceError


def test_a_url_says_where_and_how() -> None:
    url = "bullmq://me:s%40crt@redis.example:7000/2?queue=out&in=back&prefix={bull}&durable=require&lock=2.5&tls=true"
    assert read_url(url) == Address(
        host="redis.example", port=7000, db=2, username="me", password="s@crt", queue="out", inward="back",
        prefix="{bull}", durable="require", lock=2.5, tls=True,
    )  # fmt: skip


def test_a_short_url_has_the_usual_place() -> None:
    address = read_url("bullmq://localhost?in=back")
    assert (address.port, address.db, address.prefix, address.queue) == (6379, 0, "bull", None)


@pytest.mark.parametrize(("url", "words"), [
    ("bullmq://h", "names no queue: say queue=NAME to send, in=NAME to receive"),
    ("bullmq://h?queue=a:b", "queue='a:b', and takes a name without colons"),
    ("bullmq://h?queue=", "queue='', and takes a name"),
    ("bullmq://h?queue=a&lock=0", "lock='0', and takes seconds"),
    ("bullmq://h?queue=a&keep=some", "keep='some', and takes a whole number"),
    ("bullmq://h?queue=a&attempts=0", "attempts='0', and takes a whole number from 1"),
    ("bullmq://h?queue=a&durable=no", "takes warn, require or ignore"),
    ("bullmq://h?queue=a&tls=maybe", "takes true or false"),
    ("bullmq://h?queue=a&nme=b", "option 'nme', which is not known: use attempts, durable, in"),
    ("bullmq://h:port?queue=a", "a port or a database that is no number"),
    ("bullmq://h/one?queue=a", "a port or a database that is no number"),
])  # fmt: skip
def test_a_wrong_url_says_what_is_wrong(url: str, words: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read_url(url)
    assert words in str(caught.value)


def test_a_wrong_url_keeps_its_password_to_itself() -> None:
    with pytest.raises(ServiceError) as caught:
        read_url("bullmq://me:secret@h?queue=a&nme=b")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("event_id", "words"), [
    ("a:b", "colon"), ("a:b:c", "colon"), ("17", "whole number"), ("-3", "whole number"), ("meta", "of a queue"),
    ("stalled-check", "of a queue"),
])  # fmt: skip
def test_ids_that_bullmq_cannot_have_are_refused(event_id: str, words: str) -> None:
    assert words in (refused_id(event_id) or "")


@pytest.mark.parametrize("event_id", ["0190a2b4-7c00-7000-8000-000000000000", "order-17", "17a", "ü", "1.5"])
def test_other_ids_are_taken(event_id: str) -> None:
    assert refused_id(event_id) is None


@pytest.mark.parametrize("package", ["hiredis", "redis.asyncio"])
def test_a_missing_package_is_named_with_the_way_to_get_it(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from tidings import Service\n"
        "Service('s', store='sqlite:///:memory:', transport='bullmq://localhost?in=q')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"needs the package {package}" in done.stderr
    assert 'pip install "tidings[bullmq]"' in done.stderr
