"""The storm of the fault tests blows here, too; and tests may have servers of their own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "faults")]
pytest.register_assert_rewrite("aftermath")

from servers import Server, servers  # noqa: E402


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that the tests of one module have to themselves, of the wheel's version (18)."""
    with servers() as new:
        server = new()
        server.make()
        yield server
