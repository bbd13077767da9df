"""The benchmarks run, check the effects they measure, and judge their goals rightly."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def frame() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_frame", ROOT / "benchmarks" / "frame.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_frame"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_ratio_is_the_median_of_the_rounds_own_ratios(frame: ModuleType) -> None:
    results = frame.Results()
    for ours, raw in ((50, 100), (5, 20), (600, 1000)):
        results.add({"ours": [ours], "raw": [raw]})
    assert results.ratio("ours", "raw") == 0.5
    assert results.median("raw") == 100
    assert results.spread("ours") == (5, 600)


def test_each_round_begins_with_the_next_case(frame: ModuleType) -> None:
    order: list[str] = []

    def case(name: str) -> object:
        def measure() -> dict[str, list[float]]:
            order.append(name)
            return {name: [1.0]}

        return frame.Case(measure)

    frame.run_rounds([case("a"), case("b"), case("c")], 2)
    assert order == ["a", "b", "c", "b", "c", "a"]


@pytest.mark.parametrize(("goal", "word"), [({"at_least": 0.5}, "met"), ({"at_least": 0.51}, "MISSED")])
def test_a_rate_is_judged_beside_the_faster_neighbour(frame: ModuleType, goal: dict[str, float], word: str) -> None:
    results = frame.Results()
    results.add({"ours": [50], "slow": [10], "fast": [100]})
    row = frame.verdict(results, frame.Goal("ours", ("slow", "fast"), **goal))
    assert "| fast | 0.50 |" in row
    assert f"| {word} |" in row


@pytest.mark.parametrize(("highest", "word"), [(4.9, "met"), (5.1, "MISSED")])
def test_a_latency_is_judged_by_its_99th_percentile(frame: ModuleType, highest: float, word: str) -> None:
    results = frame.Results()
    results.add({"latency": [1.0] * 98 + [highest] * 2})
    assert f"| {word} |" in frame.verdict(results, frame.Goal("latency", at_most=5))


def test_what_was_not_measured_is_not_judged(frame: ModuleType) -> None:
    results = frame.Results()
    results.add({"ours": [1.0]})
    assert frame.verdict(results, frame.Goal("ours", ("theirs",), at_least=1)) is None
    assert frame.verdict(results, frame.Goal("other", at_most=1)) is None


@pytest.mark.soak
@pytest.mark.parametrize("part", ["publish", "drain", "no-op sqlite3", "no-op apsw", "latency"])
def test_every_case_runs(part: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "embedded.py"), "--quick", "--only", part]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    measured = [line for line in done.stdout.splitlines() if part.split()[0] in line or "handler" in line]
    assert any("tidings" in line for line in measured)
    assert any("raw" in line for line in measured)
