"""The tables "what we promise | how it is proved" of the explanations name tests and planted bugs that are there."""

import re
from pathlib import Path

import pytest

from tidings.testing.simulation.planting import MUTANTS
from tidings.testing.simulation.projection_mutants import MUTANTS as PROJECTION_MUTANTS
from tidings.testing.simulation.saga_mutants import SAGA_MUTANTS

ROOT = Path(__file__).resolve().parents[4]
PAGES = sorted((ROOT / "docs" / "explanation").glob("*.md"))
WITHOUT = {"README.md", "log.md", "promises.md", "simulation.md"}
"""Pages that lead to others, or are about all promises at once."""

PLANTED = {
    "packages/tidings/tests/simulation/test_promises.py": MUTANTS,
    "packages/tidings/tests/projections/test_seeds.py": PROJECTION_MUTANTS,
    "packages/tidings/tests/sagas/test_simulation.py": SAGA_MUTANTS,
}
"""Which planted bugs the tests of a file demand to be found."""

_TABLE = re.compile(r"^\| what we promise \| how it is proved \|\n\|---\|---\|\n((?:\|.*\n)+)", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)")


def rows(page: Path) -> list[str]:
    """The second columns of a page's tables of proofs."""
    return [row.rsplit(" | ", 1)[1] for table in _TABLE.findall(page.read_text("utf-8")) for row in table.splitlines()]


def missing(proof: str, page: Path) -> list[str]:
    """The names that a row quotes and none of its linked files knows; or that it has no link at all."""
    files = [(page.parent / target).resolve() for target in _LINK.findall(proof)]
    known = [file.read_text("utf-8") for file in files if file.suffix == ".py"]
    planted = {name for file in files for name in PLANTED.get(str(file.relative_to(ROOT)), ())}
    quoted = re.findall(r"`([a-z_.]+)`", proof)
    unknown = [
        name for name in quoted if name not in planted and not any(re.search(rf"\b{name}\b", text) for text in known)
    ]
    return unknown if files else ["a link"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_every_proof_is_there(page: Path) -> None:
    assert [name for proof in rows(page) for name in missing(proof, page)] == []


def test_every_page_says_what_is_promised() -> None:
    assert [page.name for page in PAGES if page.name not in WITHOUT and len(rows(page)) < 2] == []


def test_a_proof_that_is_not_there_is_found() -> None:
    link = "[test_promises](../../packages/tidings/tests/simulation/test_promises.py)"
    page = ROOT / "docs" / "explanation" / "log.md"
    assert missing(f"`dual_write` and `test_no_promise_is_broken` in {link} |", page) == []
    assert missing(f"`dual_wield` in {link} |", page) == ["dual_wield"]
    assert missing(f"`timer_after_completion` in {link} |", page) == ["timer_after_completion"]
    assert missing("`dual_write` |", page) == ["a link"]


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "explanation" / "README.md").read_text("utf-8")
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in index] == []
