"""What a person does with the cloud on one machine: `make run-cloud` and `make lambda-package`."""

import asyncio
import re
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import httpx
import pytest
from cloud_servers import free_port
from local_cloud import ROOT, Place, function_at_work

STARTED = 120
RENDERED = 90


def until_done(client: httpx.Client, home: str) -> None:
    """Wait until an export has ended, and find all of it made."""
    ends = time.monotonic() + RENDERED
    while (export := client.get(home).json()["export"])["state"] not in ("done", "dead", "cancelled"):
        assert time.monotonic() < ends, export
        time.sleep(0.2)
    assert (export["state"], export["done"]) == ("done", export["total"])


def processes_at(folder: str) -> list[str]:
    """The command lines of the processes that work in a folder, or name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            where = str((process / "cwd").readlink())
        except OSError:
            continue  # it has ended
        if folder in words or where.startswith(folder):
            found.append(words)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc, which only Linux has")
def test_run_cloud_serves_exports_and_leaves_nothing_behind(order) -> None:
    port = free_port()
    command = [sys.executable, "-u", str(ROOT / "tools/run_cloud.py")]
    running = subprocess.Popen(command, env={"PORT": str(port), "PATH": "/usr/local/bin:/usr/bin:/bin"}, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    assert running.stdout is not None
    try:
        said = ""
        for line in running.stdout:
            said += line
            if address := re.search(r"(http://\S+?)/ .*logs in (\S+),", said):
                break
        assert address, said
        folder = address[2]
        with httpx.Client(base_url=address[1], timeout=40) as client:
            home = client.post("/v1/exports", json=order(2)).headers["location"]
            until_done(client, home)
            archive = client.get(f"{home}/archive", follow_redirects=True)
            assert archive.content.startswith(b"PK")
        assert len(processes_at(folder)) > 3, "the stand-in, Redis, Postgres, the function"
    finally:
        running.send_signal(signal.SIGINT)  # Ctrl-C
        rest, _ = running.communicate(timeout=60)
    assert running.returncode == 0, said + rest
    assert "Stopping." in rest
    assert "Traceback" not in rest
    assert not Path(folder).exists()
    assert processes_at(folder) == []


@pytest.mark.soak
async def test_the_package_of_the_function_fits_and_renders_with_nothing_but_what_is_in_it(
    place: Place, client: httpx.AsyncClient, order, tmp_path: Path
) -> None:
    build = [sys.executable, ROOT / "tools/lambda_package.py"]
    built = await asyncio.to_thread(subprocess.run, build, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert re.search(r"build/lambda: \d+ MB of 250 MB", built.stdout)
    venv.create(tmp_path / "empty", with_pip=False)
    package = (ROOT / "build/lambda", tmp_path / "empty/bin/python")
    async with function_at_work(place, package=package):
        home = (await client.post("/v1/exports", json=order(2))).headers["location"]
        with httpx.Client(base_url=client.base_url, timeout=40) as watching:
            await asyncio.to_thread(until_done, watching, home)
