"""Lets the fault tests import the modules beside them, which their child processes run as scripts."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("aftermath")

from processes import Processes, processes  # noqa: E402


@pytest.fixture(name="processes")
def started_processes(tmp_path: Path) -> Iterator[Processes]:
    """The real processes of one test; none of them outlives it."""
    with processes(tmp_path) as started:
        yield started
