"""The lock of subscriptions: a vanished, added, renamed or changed name is told."""

import json

import pytest

from tidings import Event, OperationError, Service, StrictJSONError, Transaction, Work, operations


class Placed(Event, name="lock.order.placed"):
    order_id: str


class Charged(Event, name="lock.order.charged"):
    order_id: str


def service(*names: str, ordered: bool = False, renamed_from: str | None = None) -> Service:
    made = Service("shop", store="sqlite:///:memory:")

    async def handle(event: Placed, tx: Transaction) -> None: ...

    for name in names:
        made.subscribe(Placed, name=name, ordered=ordered, renamed_from=renamed_from)(handle)
    made.resolve()
    return made


def changes(old: Service, new: Service) -> list[tuple[str, str]]:
    before = operations.declared(old.name, old.subscriptions)
    after = operations.declared(new.name, new.subscriptions)
    renamed = {one.name: one.renamed_from for one in new.subscriptions}
    return [(one.change, one.name) for one in operations.differences(before, after, renamed)]


def test_the_same_code_has_no_differences_in_any_order() -> None:
    assert changes(service("a", "b"), service("b", "a")) == []


def test_a_vanished_and_an_added_name() -> None:
    assert changes(service("a", "b"), service("a", "c")) == [("vanished", "b"), ("added", "c")]


def test_a_renamed_one_is_neither() -> None:
    assert changes(service("a"), service("b", renamed_from="a")) == [("renamed", "b")]
    assert changes(service("b"), service("b", renamed_from="a")) == []


def test_what_changed_is_named() -> None:
    before, after = service("a"), service("a", ordered=True)
    found = operations.differences(
        operations.declared("shop", before.subscriptions), operations.declared("shop", after.subscriptions), {}
    )
    assert [one.detail for one in found] == ["ordered was False, is True"]


def test_kind_types_and_start_are_kept() -> None:
    made = Service("shop", store="sqlite:///:memory:")

    @made.subscribe(Placed, Charged, start="beginning")
    async def receipt(event: Placed | Charged, work: Work) -> None: ...

    made.resolve()
    text = operations.lock_to_json(operations.declared(made.name, made.subscriptions))
    assert json.loads(text) == {
        "service": "shop",
        "subscriptions": {
            "receipt": {
                "kind": "work",
                "ordered": False,
                "types": ["lock.order.charged", "lock.order.placed"],
                "start": "beginning",
            }
        },
    }
    assert operations.lock_from_json(text.encode(), "x") == operations.declared(made.name, made.subscriptions)
    assert text.endswith("}\n")


@pytest.mark.parametrize("text", [b"[]", b'{"service": "x"}', b'{"service": "x", "subscriptions": {"a": {}}}'])
def test_a_file_that_is_no_lock_is_told_so(text: bytes) -> None:
    with pytest.raises(OperationError, match=r"tidings\.lock is not a lock"):
        operations.lock_from_json(text, "tidings.lock")


@pytest.mark.parametrize("text", [b"", b"{", b'{"service": 1, "service": 2}', b"\xff"])
def test_a_file_that_is_no_strict_json_is_refused(text: bytes) -> None:
    with pytest.raises(StrictJSONError):
        operations.lock_from_json(text, "tidings.lock")
