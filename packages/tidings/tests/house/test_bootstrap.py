"""The bootstrap on machines that lack something: it says in plain words what to install, and trusts no copied .venv."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
WITHOUT_ENSUREPIP = f"""#!/bin/sh
case "$*" in *ensurepip*) exit 1 ;; esac
exec {sys.executable} "$@"
"""
TOO_OLD = """#!/bin/sh
case "$1" in --version) echo "Python 3.9.2" ;; *) exit 1 ;; esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A fresh copy of the build files, and a folder `bin` that holds all the commands there are."""
    for name in ("Makefile", "tools", "requirements", "packages/tidings/pyproject.toml",
                 "packages/adexport/pyproject.toml"):  # fmt: skip
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    (tmp_path / "bin").mkdir()
    for command in ("sh", "make", "cat", "dirname", "rm", "touch", "pwd"):
        (tmp_path / "bin" / command).symlink_to(shutil.which(command) or command)
    return tmp_path


def make(machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make with nothing but `bin` on the PATH."""
    environment = {"PATH": str(machine / "bin"), "HOME": str(machine), "LC_ALL": "C"}
    command = [str(machine / "bin/make"), *arguments]
    return subprocess.run(command, cwd=machine, env=environment, capture_output=True, text=True, check=False)


def add_python(machine: Path, script: str) -> None:
    python = machine / "bin/python3"
    python.write_text(script)
    python.chmod(0o755)


@pytest.mark.parametrize(("script", "words"), [
    (None, ["found no python3", "apt-get install python3 python3-venv", "or install uv"]),
    (TOO_OLD, ["needs Python 3.11, 3.12, 3.13 or 3.14", "found Python 3.9.2"]),
    (WITHOUT_ENSUREPIP, ["without the venv and ensurepip modules", f"python3.{sys.version_info[1]}-venv"]),
])  # fmt: skip
def test_it_says_what_to_install(machine: Path, script: str | None, words: list[str]) -> None:
    if script is not None:
        add_python(machine, script)
    ran = make(machine, "setup")
    assert ran.returncode != 0
    assert [word for word in words if word not in ran.stderr] == []
    assert "Traceback" not in ran.stderr
    assert not (machine / ".venv").exists()


@pytest.mark.parametrize(("folder", "is_made_again"), [("", False), ("/somewhere/else", True)])
def test_a_copied_environment_is_made_again(machine: Path, folder: str, is_made_again: bool) -> None:
    """Its links hold the folder it was made in, so a copy would quietly run the code of the original."""
    (machine / ".venv").mkdir()
    (machine / ".venv/.folder").write_text(folder or os.path.realpath(machine))
    (machine / ".venv/.installed-run").touch()
    assert ("tools/setup.sh run" in make(machine, "-n", "setup").stdout) is is_made_again


def test_a_changed_lock_is_installed_again(machine: Path) -> None:
    (machine / ".venv").mkdir()
    for name in ("run", "test"):
        (machine / f".venv/.installed-{name}").touch()
    assert "setup.sh" not in make(machine, "-n", ".venv/.installed-test").stdout
    later = (machine / ".venv/.installed-test").stat().st_mtime + 10
    os.utime(machine / "requirements/test.lock", (later, later))
    planned = make(machine, "-n", ".venv/.installed-test").stdout
    assert "setup.sh test" in planned
    assert "setup.sh run" not in planned
