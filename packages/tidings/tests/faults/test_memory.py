"""Memory does not grow with events; benchmarks/memory.py does the work, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[4] / "benchmarks" / "memory.py"
MOST = 1.1


@pytest.mark.parametrize("events", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_memory_does_not_grow_with_events(events: int) -> None:
    run = subprocess.run([sys.executable, str(SCRIPT), str(events)], capture_output=True, text=True, check=True)
    seen = json.loads(run.stdout)
    print(seen)
    assert seen["rss_after_all"] <= MOST * seen["rss_after_a_tenth"]
