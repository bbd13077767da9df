"""The repository: nothing of one machine in it, the promised targets, a README that points at real files."""

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[4]
TARGETS = ("setup", "run", "test", "check", "conformance", "bench", "soak")
# Written in two halves, so that this file does not name what it looks for.
INDEXES = tuple("".join(halves) for halves in (
    ("py", "pi.org"), ("files.python", "hosted.org"), ("registry.npm", "js.org"), ("deb.deb", "ian.org"),
))  # fmt: skip
MACHINE_PATH = re.compile(r"(?<![\w./:-])/(?:work|root|home/\w+|Users/\w+)/[\w.]")


def budgets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("budgets", ROOT / "tools/budgets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts() -> list[tuple[str, str]]:
    """(path, text) of every text file of the repository."""
    found = []
    for path in budgets().source_files(ROOT):
        try:
            found.append((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue  # fonts, images and stubs
    return found


def test_no_file_names_an_index_or_a_path_of_one_machine() -> None:
    found = [
        f"{path}: {sign}"
        for path, text in texts()
        for sign in [*filter(text.__contains__, INDEXES), *MACHINE_PATH.findall(text)]
    ]
    assert found == []


@pytest.mark.parametrize(("text", "is_seen"), [
    ("/" + "root/.cache", True), ("open('/" + "work/main/x')", True), ("https://x.example/" + "home/a/b", False),
    ("docs/work/plan", False),
])  # fmt: skip
def test_a_path_of_one_machine_would_be_seen(text: str, is_seen: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is is_seen


def test_there_is_no_second_lock() -> None:
    assert not [path for path, _ in texts() if Path(path).name in {"uv.lock", "poetry.lock", "Pipfile.lock"}]


@pytest.mark.parametrize("target", TARGETS)
def test_the_makefile_has_the_target(target: str) -> None:
    """make knows how to reach the target from a fresh clone; -n prints what it would do."""
    planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert planned.returncode == 0, planned.stderr


def test_the_readme_points_at_files_that_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_starts_with_the_two_commands_and_the_seven_steps() -> None:
    first_screen = (ROOT / "README.md").read_text().splitlines()[:40]
    assert {"make run", "make test"} <= {line.split("  ")[0].strip() for line in first_screen}
    assert [line[2] for line in first_screen if re.match(r"\| \d \|", line)] == list("1234567")


def test_the_budgets_find_what_they_are_for(tmp_path: Path) -> None:
    house = budgets()
    (tmp_path / "job_manager.py").write_text('"""Says so."""\n' + "def run() -> None:\n" + "    x = 1\n" * 40)
    (tmp_path / "late.py").write_text("import os\n\n\nclass BaseThing:\n    pass\n")
    (tmp_path / "long.css").write_text("a {}\n" * 401)
    (tmp_path / "scores.py").write_text('"""Fine: a score is not a core, a database not a base."""\n\nDATABASE = 1\n')
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/long.py").write_text("x = 1\n" * 401)
    assert house.findings(tmp_path) == [
        "job_manager.py: the name uses 'manager', say what it does instead",
        "job_manager.py::run: 41 lines, at most 40 are allowed: split it",
        "late.py: the first line must be a docstring that says what lives in the file",
        "late.py:4: the name uses 'base', say what it does instead",
        "long.css: 401 lines, at most 400 are allowed: split it",
    ]


def test_the_packages_are_linked_with_their_scripts_and_their_pytest_plugin() -> None:
    assert entry_points(group="console_scripts", name="tidings")["tidings"].value == "tidings.cli.main:main"
    assert entry_points(group="console_scripts", name="adexport")["adexport"].value == "adexport.entrypoints.cli:main"
    assert entry_points(group="pytest11", name="tidings")["tidings"].value == "tidings.testing.plugin"
    assert (Path(sys.executable).parent / "adexport").exists()
