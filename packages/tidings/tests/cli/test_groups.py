"""A group of commands without a command shows its help, as it would with --help, and fails."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("args", [[], ["dlq"], ["store"], ["subscription"]])
def test_a_group_without_a_command_shows_its_help(args: list[str]) -> None:
    command = [sys.executable, "-m", "tidings.cli", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    asked = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert asked.stdout.startswith(" ".join(["Usage: tidings", *args, "[OPTIONS] COMMAND"]))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", asked.stdout)
