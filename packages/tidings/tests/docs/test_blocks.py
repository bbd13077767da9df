"""The code in the documentation runs: every Python block of a page in order, every console block with its output.

A ```python block whose first line is `# name.py` is written to that file in the page's folder; the others run, in one
module a page. In a ```console block, lines after `$ ` are run there, and what follows is compared; `...` stands for
anything. Other blocks (text, sh, json, http) are only read.
"""

import ast
import asyncio
import doctest
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[4]
PAGES = [ROOT / "README.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# ([a-z_]+\.py)\n")
_SAME = doctest.OutputChecker().check_output


class Block(NamedTuple):
    """One fenced block: its language, its text, and its line in the page."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [Block(one[1], one[2], text.count("\n", 0, one.start()) + 2) for one in _BLOCK.finditer(text)]


def with_code() -> list[Path]:
    return [page for page in PAGES if blocks(page)]


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """A module for a page's blocks, known by its name as a real one is."""
    made = ModuleType("page")
    sys.modules["page"] = made
    yield made
    del sys.modules["page"]


@pytest.mark.parametrize("page", with_code(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(
    page: Path, module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for block in blocks(page):
        place = f"{page.relative_to(ROOT)}:{block.line}"
        name = _FILE.match(block.text)
        if block.language == "console":
            for command, expected in commands(block.text):
                check_command(command, expected, place)
        elif name:
            (tmp_path / name[1]).write_text(block.text, "utf-8")
        else:
            execute(block.text, module, place)


def execute(text: str, module: ModuleType, place: str) -> None:
    code = compile(text, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, module.__dict__)
    if inspect.iscoroutine(result):
        asyncio.run(result)


def commands(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def check_command(command: str, expected: str, place: str) -> None:
    """Run a command of the page; `tidings` and `python` are those of this environment."""
    folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    environment.pop("TIDINGS_STORE", None)
    done = subprocess.run(
        command,
        shell=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert _SAME(expected, done.stdout, options), f"{place}: $ {command}\nexpected:\n{expected}\ngot:\n{done.stdout}"


def test_the_comparison_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_command("echo hello there", "hello ...\n", "here:1")
    with pytest.raises(AssertionError, match=r"here:1: \$ echo goodbye"):
        check_command("echo goodbye", "hello\n", "here:1")


def test_there_are_pages_with_code() -> None:
    assert len(with_code()) >= 7
    assert ROOT / "README.md" in with_code()


def test_the_ten_lines_of_the_readme_handle_an_event(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / "README.md"):
        execute(block.text, module, "README.md")
    service = module.__dict__["service"]

    async def charged() -> object:
        async with service, asyncio.timeout(20):
            await service.publish(module.__dict__["OrderPlaced"](order_id="o-1", amount_cents=1200))
            while (row := await service.fetch_one("SELECT order_id, cents FROM charges")) is None:  # noqa: ASYNC110 - a row
                await asyncio.sleep(0.01)
            return row

    assert asyncio.run(charged()) == ("o-1", 1200)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    missing = [
        target
        for target in targets
        if "://" not in target and not target.startswith(("#", "mailto:")) and not _exists(page, target)
    ]
    assert missing == []


def _exists(page: Path, target: str) -> bool:
    return (page.parent / target.partition("#")[0]).exists()
