"""skia without libGL, libEGL and libexpat: the stubs let it load and draw the same pixels."""

import ctypes
import hashlib
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import adexport.rendering
from adexport.designs import bundled_asset, load_samples
from adexport.rendering import render
from adexport.rendering.skia_loader import SONAMES, load_missing_libraries, skia

_STUBS = Path(adexport.rendering.__file__).parent / "stubs"
_ARCHITECTURES = {"x86_64": 62, "aarch64": 183}  # ELF machine numbers
_RENDER = """
import hashlib
from adexport.designs import bundled_asset, load_samples
from adexport.rendering import render
from adexport.rendering.skia_loader import STUBBED
sample = load_samples()["product-spotlight"]
row = {"brand": "b", "product": "Lamp", "tagline": "t", "price": "3", "badge": "", "cta": "Go", "image": "asset:lamp"}
print(" ".join(STUBBED), hashlib.sha256(render(sample.design, 300, 250, row, bundled_asset).rgba).hexdigest())
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only the Linux wheel of skia links these libraries")


def _python(code: str, hidden: Path) -> subprocess.CompletedProcess[str]:
    """Run code where the dynamic linker finds only broken files by the names of the three libraries."""
    environment = {"LD_LIBRARY_PATH": str(hidden), "PATH": "/usr/bin:/bin"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


def _hideable() -> list[str]:
    """The libraries that Python itself can do without: some builds of it link libexpat."""
    code = "print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    return [soname for soname in SONAMES if soname.removesuffix(".1") not in maps]


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    for soname in _hideable():
        (tmp_path / soname).write_bytes(b"")
    return tmp_path


@linux_only
def test_without_the_stubs_skia_does_not_even_load(hidden: Path) -> None:
    result = _python("import skia", hidden)
    assert result.returncode != 0
    assert re.search(r"lib(GL|EGL|expat)\.so\.1", result.stderr)


@linux_only
def test_with_the_stubs_it_draws_the_same_pixels(hidden: Path) -> None:
    result = _python(_RENDER, hidden)
    assert result.returncode == 0, result.stderr
    *stubbed, digest = result.stdout.split()
    assert stubbed == _hideable()
    row = {
        "brand": "b",
        "product": "Lamp",
        "tagline": "t",
        "price": "3",
        "badge": "",
        "cta": "Go",
        "image": "asset:lamp",
    }
    here = render(load_samples()["product-spotlight"].design, 300, 250, row, bundled_asset)
    assert digest == hashlib.sha256(here.rgba).hexdigest()


@linux_only
def test_where_the_real_libraries_exist_nothing_is_stubbed() -> None:
    present = []
    for soname in SONAMES:
        try:
            ctypes.CDLL(soname)
            present.append(soname)
        except OSError:
            pass
    assert not set(load_missing_libraries()) & set(present)


@pytest.mark.parametrize("architecture", list(_ARCHITECTURES))
@pytest.mark.parametrize("soname", SONAMES)
def test_each_stub_is_for_its_machine_and_has_every_symbol(architecture: str, soname: str) -> None:
    data = (_STUBS / architecture / soname).read_bytes()
    assert data[:4] == b"\x7fELF"
    assert int.from_bytes(data[18:20], "little") == _ARCHITECTURES[architecture]
    names = data.split(b"\0")
    assert soname.encode() in names
    missing = [name for name in _symbols(soname) if name.encode() not in names]
    assert missing == []


@linux_only
@pytest.mark.skipif(platform.machine() not in _ARCHITECTURES, reason="no stub for this machine")
def test_the_lists_name_every_symbol_that_this_skia_wants() -> None:
    folder = Path(skia.__file__).parent
    libraries = [Path(skia.__file__), *(folder / "skia_python.libs").iterdir()]
    wanted = {name for library in libraries for name in _undefined(library.read_bytes())}
    wanted = {name for name in wanted if re.match(r"(gl|egl)[A-Z]|XML_", name)}
    assert len(wanted) > 50
    assert wanted <= {name for soname in SONAMES for name in _symbols(soname)}


def _symbols(soname: str) -> list[str]:
    return (_STUBS / f"{soname}.symbols").read_text().split()


def _undefined(elf: bytes) -> set[str]:
    """Names of the undefined dynamic symbols of a 64-bit little-endian ELF file (ELF specification, 1-9 and 1-17)."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(elf[at : at + size], "little")

    table, entry, count = number(0x28, 8), number(0x3A, 2), number(0x3C, 2)
    sections = [table + entry * index for index in range(count)]
    symbols = next(at for at in sections if number(at + 4, 4) == 11)  # SHT_DYNSYM
    strings = number(sections[number(symbols + 40, 4)] + 24, 8)
    start, size = number(symbols + 24, 8), number(symbols + 32, 8)
    found = set()
    for at in range(start, start + size, 24):
        if number(at + 6, 2) == 0:  # SHN_UNDEF
            name = strings + number(at, 4)
            found.add(elf[name : elf.index(b"\0", name)].decode())
    return found
