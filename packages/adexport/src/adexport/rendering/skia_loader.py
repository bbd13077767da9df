"""The only importer of skia: `from adexport.rendering.skia_loader import skia`.

skia-python's Linux wheel is linked against libGL, libEGL and libexpat, which slim servers and AWS Lambda
lack, although drawing in memory calls none of them. A library that is already loaded satisfies a dependency
of the same soname, so where a real one is missing a stub with that soname (`stubs/`, made by
`stubs/build.sh`) is loaded first.
"""

import ctypes
import platform
import sys
from pathlib import Path

_STUBS = Path(__file__).parent / "stubs"
SONAMES = ("libGL.so.1", "libEGL.so.1", "libexpat.so.1")


def load_missing_libraries() -> list[str]:
    """Load a stub for each library that this Linux lacks; returns the sonames that were stubbed."""
    stubbed: list[str] = []
    for soname in SONAMES if sys.platform == "linux" else ():
        try:
            ctypes.CDLL(soname)
        except OSError:
            stub = _STUBS / platform.machine() / soname
            if stub.exists():
                ctypes.CDLL(str(stub), mode=ctypes.RTLD_GLOBAL)
                stubbed.append(soname)
    return stubbed


STUBBED = load_missing_libraries()
"""Sonames that a stub stands in for in this process; empty where the real libraries exist."""

import skia  # noqa: E402  (after the stubs, on purpose)

__all__ = ["SONAMES", "STUBBED", "load_missing_libraries", "skia"]
