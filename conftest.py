"""What every test of both packages shares: the browser, and the closing lines that name what was not run."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI") == "true"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The Chromium that browser tests start: one on the PATH, else Playwright's own; skips where there is none."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None) or playwright_chromium()
    if found is None:
        pytest.skip("no Chromium here: install one, or run `sh tools/browser.sh`")
    return found


def playwright_chromium() -> str | None:
    """The path of the Chromium that `playwright install chromium` brought, if it did."""
    from playwright.sync_api import sync_playwright  # slow to import, and most test runs need no browser

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def not_run(config: pytest.Config) -> Counter[str]:
    """Reason -> number of tests that were skipped for it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    return Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was not run in the last lines, where nobody overlooks it."""
    if reasons := not_run(config):
        terminalreporter.section("Not run here" + (", and CI must run everything" if IN_CI else ""), yellow=True)
        for reason, tests in sorted(reasons.items()):
            terminalreporter.line(f"{tests} × {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test is a failed run: a missing browser or service must not pass for a green one."""
    if IN_CI and exitstatus == pytest.ExitCode.OK and not_run(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
