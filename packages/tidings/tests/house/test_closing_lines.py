"""The closing lines of a test run: what was not run is named last, and CI does not let it pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
NEEDS_A_BROWSER = '''"""Two tests, of which one needs a browser."""


def test_page(chromium_path):
    assert chromium_path


def test_other():
    assert True
'''


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the two tests with the repository's settings, on a machine that has no Chromium."""
    (folder / "test_page.py").write_text(NEEDS_A_BROWSER)
    nowhere = {"PATH": str(folder), "PLAYWRIGHT_BROWSERS_PATH": str(folder)}
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | nowhere | environment
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "conftest", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("environment", "code"), [({}, 0), ({"CI": "true"}, 1)])
def test_a_missing_browser_is_named_last_and_fails_in_ci(
    tmp_path: Path, environment: dict[str, str], code: int
) -> None:
    ran = run(tmp_path, **environment)
    *_, title, reason, closing = filter(None, ran.stdout.splitlines())
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert "Not run here" in title
    assert reason == "1 × no Chromium here: install one, or run `sh tools/browser.sh`"
    assert "1 passed, 1 skipped" in closing
