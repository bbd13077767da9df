"""A SeaweedFS on free ports: an S3 server of others that checks every signature, and lets nobody in without one."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from cloud_servers import START_SECONDS, end, free_port

SECRET = "secret-of-the-test"
WRITER, READER = "writer", "reader"
RIGHTS = {WRITER: ["Admin", "Read", "Write", "List", "Tagging"], READER: ["Read", "List"]}
"""User, who is also the key's id -> what it may do."""

PORTS = ("master", "volume", "filer", "s3")


class SeaweedServer:
    """One server whose files are in a folder; it ends by SIGKILL only."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._ports = {name: free_port() for part in PORTS for name in (f"{part}.port", f"{part}.port.grpc")}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The endpoint of S3."""
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    def start(self) -> "SeaweedServer":
        """Start, and wait until it answers."""
        users = [
            {"name": name, "credentials": [{"accessKey": name, "secretKey": SECRET}], "actions": rights}
            for name, rights in RIGHTS.items()
        ]
        (self._folder / "users.json").write_text(json.dumps({"identities": users}))
        weed = str(Path(sys.executable).with_name("weed"))
        command = [
            weed, "-logtostderr=true", "server",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-dir=.", "-s3", "-s3.config=users.json", "-volume.max=200",
            "-master.volumeSizeLimitMB=64", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]  # fmt: skip
        with (self._folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            said = (self._folder / "output.txt").read_text("utf-8", "replace")[-2000:]
            assert self._process.poll() is None, f"weed ended at once: {said}"
            assert time.monotonic() < deadline, f"weed does not answer: {said}"
            time.sleep(0.1)
        return self

    def kill(self) -> None:
        """SIGKILL, which it needs; its sockets stay behind otherwise."""
        process, self._process = self._process, None
        end(process, signal.SIGKILL)
        for port in self._ports.values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/", timeout=2):
                return True
        except urllib.error.HTTPError as error:
            return error.code == 403  # it asks who we are, and its users are read
        except OSError:
            return False
