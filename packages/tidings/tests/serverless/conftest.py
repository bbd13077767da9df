"""Fixtures of the tests of AWS Lambda: a function in this process, and what the tests of brokers have."""

import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from invoking import Invoking

from tidings import Service


@pytest.fixture
def invoking(tmp_path: Path) -> Iterator[Callable[[Callable[[Service], None]], Invoking]]:
    """Makes functions of a service whose subscriptions are given."""
    made: list[Invoking] = []

    def make(subscribe: Callable[[Service], None]) -> Invoking:
        made.append(Invoking(tmp_path, f"labels-{secrets.token_hex(6)}", subscribe))
        return made[-1]

    yield make
    for one in made:
        one.close()
