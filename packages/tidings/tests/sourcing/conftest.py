"""Every test here runs on both stores; the account of the examples is what is decided on."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "examples" / "accounts"))


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that is empty; of a file on SQLite, which several processes may open."""
    if request.param == "sqlite":
        return f"sqlite+apsw:///{tmp_path}/sourcing.db"
    url: str = request.getfixturevalue("postgres_url")
    return url
