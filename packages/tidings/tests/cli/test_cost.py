"""What starting costs: importing the library, and asking for help."""

import os
import subprocess
import sys


def cpu_seconds(*command: str) -> float:
    # As an installed package, with its bytecode: the first run may have to write it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = os.times()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=60, env=environment)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_importing_costs_at_most_150_ms_of_cpu() -> None:
    assert min(cpu_seconds("-c", "import tidings") for _ in range(7)) <= 0.15


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys, tidings.cli.main; print([m for m in ('rich', 'uvloop', 'apsw', 'starlette') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
