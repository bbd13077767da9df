"""Regenerates requirements/*.lock and requirements/wheels.json; `make lock` runs it and needs uv and an index.

The locks name versions and hashes, never an address, so they install from whatever index a machine is set up with.
wheels.json keeps which wheel files the index has for each pinned version: the tests read it to show, without a
network, that every supported Python and platform installs without compiling anything.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
# In this order: each is constrained by the ones before it, so that one environment can hold them all.
LOCKS = ("run", "test", "check", "bench-huey", "bench-dbos", "bench-eventsourcing")
PROMISED = ("run", "test")
PLATFORMS = ("any", "manylinux", "macosx")
RESOLVE = ["--quiet", "--universal", "--python-version", "3.11", "--no-emit-package", "tidings",
           "--no-emit-package", "adexport"]  # fmt: skip
WRITE = ["--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate"]

Wheels = dict[str, dict[str, str]]


def compile_lock(name: str, *options: str) -> None:
    """Resolve requirements/NAME.in with uv; raises CalledProcessError where it cannot be resolved."""
    subprocess.run(["uv", "pip", "compile", f"requirements/{name}.in", *RESOLVE, *options], cwd=ROOT, check=True)


def wheels_of(name: str) -> Wheels:
    """`name==version` -> wheel file -> SHA-256, for what requirements/NAME.lock pins."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pylock.toml"
        compile_lock(name, "--format", "pylock.toml", "--constraint", f"requirements/{name}.lock",
                     "--output-file", str(path))  # fmt: skip
        packages = tomllib.loads(path.read_text())["packages"]
    return {f"{package['name']}=={package['version']}": files_of(package) for package in packages}


def files_of(package: dict[str, list[dict[str, dict[str, str] | str]]]) -> dict[str, str]:
    """The wheel files of one pylock entry that a promised platform could take."""
    files = {}
    for wheel in package.get("wheels", []):
        file = unquote(str(wheel["url"]).rsplit("/", 1)[1])
        hashes = wheel["hashes"]
        if any(platform in file.rsplit("-", 1)[1] for platform in PLATFORMS) and isinstance(hashes, dict):
            files[file] = hashes["sha256"]
    return dict(sorted(files.items()))


def main() -> None:
    """Write every lock, then wheels.json; arguments (such as --upgrade) go to uv."""
    for name in LOCKS:
        compile_lock(name, *WRITE, "--output-file", f"requirements/{name}.lock", *sys.argv[1:])
    found: Wheels = {}
    for name in PROMISED:
        found |= wheels_of(name)
    (REQUIREMENTS / "wheels.json").write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
