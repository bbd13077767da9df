"""Where a worker runs, as far as another one can tell whether its process still exists."""

import os
import socket
import sys
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")


def this_host() -> str:
    """Name the space in which a process id means one process.

    On Linux the host's name, its boot and the pid namespace, because two machines or two containers may share a name.
    """
    try:
        return f"{socket.gethostname()}/{BOOT.read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()}/{sys.platform}"


def pid_exists(pid: int) -> bool:
    """Say whether a process of this host lives; a killed one that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
