"""Runs the conformance suites and prints which property each store and transport proves: `make conformance`.

Options are pytest's: `-k BullMQ` runs one of them.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1] / "packages" / "tidings" / "tests"
KINDS = {"STORES": "StoreSuite", "TRANSPORTS": "TransportSuite"}
"""Title -> name of the suite, by name: pytest rewrites the assertions of what is not imported yet."""

WORST_FIRST = ("NO", "not run", "not claimed", "yes")
NOT_CLAIMED = "not claimed: "

Cells = dict[tuple[str, str], set[str]]
"""(property, column) -> what came of its tests: one test may have several parameters."""


class Proofs:
    """A plugin that keeps only the tests of suites, and what came of each."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[str]]] = {kind: defaultdict(list) for kind in KINDS}
        self.columns: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self.cells: Cells = defaultdict(set)
        self._places: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what is not of a suite; put a row and a column down for the rest."""
        kept = [item for item in items if self._put_down(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def _put_down(self, item: pytest.Item) -> bool:
        if not isinstance(item, pytest.Function):
            return False
        suite = item.cls
        suites = {each.__name__ for each in suite.__mro__} if suite is not None else set()
        kind = next((title for title, name in KINDS.items() if name in suites), None)
        if suite is None or kind is None:
            return False
        name, column = item.originalname, suite.__name__.removeprefix("Test")
        part = next(each for each in suite.__mro__ if name in vars(each)).__name__.removesuffix("Suite")
        for found, new in ((self.rows[kind][part], name), (self.columns[kind], column)):
            if new not in found:
                found.append(new)
        self._places[item.nodeid] = (name, column)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what came of a test, or of making it ready."""
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            verdict = "not claimed" if NOT_CLAIMED in reason else "not run"
        elif report.failed or report.when == "call":
            verdict = "NO" if report.failed else "yes"
        else:
            return
        self.cells[self._places[report.nodeid]].add(verdict)


def table(kind: str, proofs: Proofs) -> Iterable[str]:
    """Return the lines of one table."""
    columns = proofs.columns[kind]
    if not columns:
        return
    width = max(len(said(name)) for names in proofs.rows[kind].values() for name in names) + 4
    widths = [max(len(column), len("not claimed")) for column in columns]
    yield kind.ljust(width) + "  ".join(each.ljust(wide) for each, wide in zip(columns, widths, strict=True)).rstrip()
    for part, names in proofs.rows[kind].items():
        yield f"{part}:"
        for name in names:
            verdicts = [worst(proofs.cells[name, column]) for column in columns]
            cells = "  ".join(each.ljust(wide) for each, wide in zip(verdicts, widths, strict=True))
            yield f"  {said(name)}".ljust(width) + cells.rstrip()


def said(name: str) -> str:
    """Return a test's name as a sentence."""
    return name.removeprefix("test_").replace("_", " ")


def worst(verdicts: set[str]) -> str:
    """Return what holds for all parameters of a test."""
    return next((verdict for verdict in WORST_FIRST if verdict in verdicts), "")


def main(options: list[str]) -> int:
    """Run the suites, print the tables."""
    proofs = Proofs()
    code = pytest.main(["-q", str(TESTS), *options], plugins=[proofs])
    for kind in KINDS:
        print()
        print(*table(kind, proofs), sep="\n")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
