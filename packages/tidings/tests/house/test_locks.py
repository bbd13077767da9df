"""The locks: what they pin has a wheel for every promised Python and platform, and they name no address."""

import json
import re
import tomllib
from importlib.metadata import requires
from itertools import product
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

REQUIREMENTS = Path(__file__).resolve().parents[4] / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("*.lock"))
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))
# glibc 2.28 is Debian 10, Ubuntu 20.04 and RHEL 8, the oldest that wheels of this year still carry.
LINUX = [f"manylinux_2_{minor}" for minor in range(28, 4, -1)] + ["manylinux2014", "manylinux2010", "manylinux1"]
PLATFORMS = {
    "Linux x86_64": ("linux", "x86_64", [f"{name}_x86_64" for name in LINUX]),
    "Linux aarch64": ("linux", "aarch64", [f"{name}_aarch64" for name in LINUX]),
    "macOS arm64": ("darwin", "arm64", list(mac_platforms((14, 0), "arm64"))),
}
# (package, platform) -> why there is no wheel, and what happens there instead.
EXCEPTIONS: dict[tuple[str, str], str] = {}

PIN = re.compile(r"^(?P<pin>(?P<name>[\w.-]+)==\S+)(?: ; (?P<marker>.+?))? \\$", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def pins(lock: Path) -> list[tuple[str, str, Marker | None, set[str]]]:
    """(name==version, name, marker, hashes) of each requirement in a lock."""
    text = lock.read_text()
    found = list(PIN.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [
        (match["pin"], match["name"], Marker(match["marker"]) if match["marker"] else None,
         set(HASH.findall(text[match.end():end])))
        for match, end in zip(found, ends, strict=True)
    ]  # fmt: skip


def tags(python: tuple[int, int], platforms: list[str]) -> set[Tag]:
    """The wheel tags that this CPython takes on these platforms."""
    interpreter = f"cp{python[0]}{python[1]}"
    return {*cpython_tags(python, platforms=platforms), *compatible_tags(python, interpreter, platforms)}


def is_wanted(marker: Marker | None, python: tuple[int, int], system: str, machine: str) -> bool:
    """Whether a lock line applies to this Python and platform."""
    version = f"{python[0]}.{python[1]}"
    environment = {
        "python_version": version, "python_full_version": f"{version}.0", "sys_platform": system,
        "platform_system": system.capitalize(), "platform_machine": machine, "os_name": "posix",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip
    return marker is None or marker.evaluate(environment)


@pytest.mark.parametrize(("python", "platform"), list(product(PYTHONS, PLATFORMS)))
@pytest.mark.parametrize("lock", ["run", "test"])
def test_every_dependency_has_a_wheel(lock: str, python: tuple[int, int], platform: str) -> None:
    known = json.loads((REQUIREMENTS / "wheels.json").read_text())
    system, machine, platforms = PLATFORMS[platform]
    accepted = tags(python, platforms)
    missing = {
        pin
        for pin, name, marker, hashes in pins(REQUIREMENTS / f"{lock}.lock")
        if is_wanted(marker, python, system, machine)
        if (name, platform) not in EXCEPTIONS
        if not any(hashed in hashes and parse_wheel_filename(file)[3] & accepted for file, hashed in known[pin].items())
    }
    assert not missing, f"no wheel for Python {python} on {platform}: {sorted(missing)}"


def test_a_missing_wheel_would_be_seen() -> None:
    """The tags tell the platforms and versions apart: a wheel for another one is not taken for ours."""
    accepted = tags((3, 12), PLATFORMS["Linux aarch64"][2])
    assert parse_wheel_filename("x-1-cp312-cp312-manylinux_2_17_aarch64.whl")[3] & accepted
    assert parse_wheel_filename("x-1-cp38-abi3-manylinux2014_aarch64.whl")[3] & accepted
    for other in ("cp312-cp312-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_17_aarch64",
                  "cp312-cp312-manylinux_2_39_aarch64", "cp312-cp312-musllinux_1_2_aarch64"):  # fmt: skip
        assert not parse_wheel_filename(f"x-1-{other}.whl")[3] & accepted, other


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_pins_everything_by_hash_and_names_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "index-url" not in text
    assert "/" not in HASH.sub("", text), "a path leaked into the lock"
    requirements = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert [pin for pin, *_ in pins(lock)] == [line.split()[0] for line in requirements]
    assert all(hashes for *_, hashes in pins(lock))


def test_the_locks_agree() -> None:
    """run, test and check go into one environment, so a package has one version in all three."""
    versions: dict[tuple[str, str], set[str]] = {}
    for lock in ("run", "test", "check"):
        for pin, name, marker, _ in pins(REQUIREMENTS / f"{lock}.lock"):
            versions.setdefault((name, str(marker)), set()).add(pin)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("package", ["tidings", "adexport"])
def test_the_lock_has_what_a_package_asks_for(package: str) -> None:
    """A dependency added or raised in a pyproject.toml needs a `make lock`."""
    project = tomllib.loads((REQUIREMENTS.parent / "packages" / package / "pyproject.toml").read_text())["project"]
    locked: dict[str, list[str]] = {}
    for pin, name, *_ in pins(REQUIREMENTS / "run.lock"):
        locked.setdefault(name, []).append(pin.split("==")[1])
    asked = [Requirement(text) for text in project["dependencies"]]
    unmet = [
        str(wanted)
        for wanted in asked
        if wanted.name != "tidings" and not all(map(wanted.specifier.contains, locked.get(wanted.name, ["0"])))
    ]
    assert unmet == []


def test_installing_tidings_brings_few_packages() -> None:
    """`pip install tidings` brings at most six packages: the promise of the design."""
    installed = {"tidings"}
    waiting = list(installed)
    while waiting:
        for text in requires(waiting.pop()) or []:
            wanted = Requirement(text)
            if wanted.name not in installed and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
                installed.add(wanted.name)
                waiting.append(wanted.name)
    assert {"msgspec", "click"} <= installed
    assert len(installed) <= 6
