"""Checks what ruff cannot: lengths of files and functions, the first line of a file, words banned from names.

`make check` runs it over every Python, JavaScript, CSS, HTML, SQL and shell file of the repository. It prints one
line per finding and exits with 1 where there is any.
"""

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = 400
FUNCTION_LINES = 40
SUFFIXES = {".py", ".js", ".mjs", ".css", ".html", ".sql", ".sh"}
BANNED = {"manager", "helper", "helpers", "utils", "util", "common", "core", "base", "processor"}
SKIPPED_FOLDERS = {".git", "__pycache__", "node_modules", "data", "build", "dist"}

# path, or path::function -> why it may be longer. An entry that is no longer needed is a finding too.
EXCEPTIONS: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def source_files(root: Path) -> Iterator[Path]:
    """Every file under `root` that belongs to the repository: caches, environments and built files are left out."""
    for folder, folders, files in os.walk(root):
        inside = Path(folder)
        folders[:] = sorted(name for name in folders if belongs(inside / name))
        yield from (inside / name for name in sorted(files))


def belongs(folder: Path) -> bool:
    """Whether a folder holds the repository's own files."""
    generated = folder.name in SKIPPED_FOLDERS or folder.name.endswith((".egg-info", "_cache"))
    return not generated and not folder.name.startswith((".venv", ".hypothesis"))


def words(name: str) -> set[str]:
    """The lower-case words of a name in snake_case or CamelCase: `JobManager` -> {"job", "manager"}."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def too_long(place: str, lines: int, limit: int) -> Iterator[str]:
    """A finding where `lines` is over `limit` without a named reason, or within it with one."""
    if lines > limit and place not in EXCEPTIONS:
        yield f"{place}: {lines} lines, at most {limit} are allowed: split it"
    if lines <= limit and place in EXCEPTIONS:
        yield f"{place}: is within its budget, remove its exception"


def check_names(place: str, name: str) -> Iterator[str]:
    """A finding for a name that says nothing about what the thing does."""
    if found := words(name) & BANNED:
        yield f"{place}: the name uses '{min(found)}', say what it does instead"


def check_python(place: str, text: str) -> Iterator[str]:
    """Findings in one Python file: its first line, and the names and lengths of what it defines."""
    if not text.startswith('"""'):
        yield f"{place}: the first line must be a docstring that says what lives in the file"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function | ast.ClassDef):
            yield from check_names(f"{place}:{node.lineno}", node.name)
        if isinstance(node, Function):
            yield from too_long(f"{place}::{node.name}", (node.end_lineno or 0) - node.lineno + 1, FUNCTION_LINES)


def check_file(root: Path, path: Path) -> Iterator[str]:
    """Findings in one source file; its place is named relative to `root`."""
    place = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    yield from check_names(place, path.stem)
    yield from too_long(place, len(text.splitlines()), FILE_LINES)
    if path.suffix == ".py":
        yield from check_python(place, text)


def findings(root: Path) -> list[str]:
    """Every finding in the repository at `root`, in order of path."""
    paths = [path for path in source_files(root) if path.suffix in SUFFIXES]
    missing = [f"{place}: has an exception but does not exist" for place in EXCEPTIONS
               if not (root / place.split("::")[0]).exists()]  # fmt: skip
    return missing + [finding for path in paths for finding in check_file(root, path)]


if __name__ == "__main__":
    found = findings(ROOT)
    print("\n".join(found) or "Every file and function is within its budget.")
    sys.exit(bool(found))
