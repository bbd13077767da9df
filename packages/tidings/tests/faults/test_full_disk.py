"""A disk that is full: publishing says so and leaves nothing half-done, no handler is blamed, and it all recovers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def own_mounts() -> list[str] | None:
    """Return the command that gives a process mounts of its own here, None where that is not allowed."""
    for command in (["unshare", "-m"], ["unshare", "-Urm"]):
        probe = [*command, "mount", "-t", "tmpfs", "-o", "size=4096", "tmpfs", str(HERE)]
        if shutil.which("unshare") and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return command
    return None


MOUNTS = own_mounts()
DISKS = ["pages"] if MOUNTS is None else ["pages", "tmpfs"]
"""A real small disk needs the right to mount one; SQLite's own limit is there everywhere."""


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+apsw"])
@pytest.mark.parametrize("disk", DISKS)
def test_full_disk(tmp_path: Path, scheme: str, disk: str) -> None:
    command = [sys.executable, str(HERE / "full_disk.py"), str(tmp_path), scheme, disk]
    in_mounts = MOUNTS if disk == "tmpfs" and MOUNTS else []
    run = subprocess.run([*in_mounts, *command], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr[-4000:]
    seen = json.loads(run.stdout)
    assert "free disk space" in seen["error"]
    assert "free disk space" in seen["second_error"]
    assert seen["settled"], run.stderr[-4000:]
    assert len(seen["acknowledged"]) > 20
    assert set(seen["acknowledged"]) == set(seen["log"])
    assert sorted(event_id for event_id, _ in seen["effects"]) == sorted(seen["log"])
    assert {attempt for _, attempt in seen["effects"]} == {1}
    assert (seen["held_while_full"], seen["held"], seen["integrity"]) == (0, 0, "ok")
