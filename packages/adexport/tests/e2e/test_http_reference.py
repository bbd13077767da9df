"""The commands of docs/reference/http-api.md, run as they stand there."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[4] / "docs/reference/http-api.md"
ADDRESS = "http://127.0.0.1:8000"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_command_works_as_it_is_written(server, tmp_path):
    blocks = re.findall(r"```sh\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
    script = "\n".join(blocks)
    assert ADDRESS in script
    done = subprocess.run(
        ["sh", "-e", "-c", script.replace(ADDRESS, server.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers, text, decoder = [], done.stdout.strip(), json.JSONDecoder()
    while text:
        answer, end = decoder.raw_decode(text)
        answers.append(answer)
        text = text[end:].strip()
    assert [answer.get("detail") for answer in answers] == [None] * 4
    assert [answer["export"]["total"] for answer in answers[:3]] == [48, 1, 1]
    preflight = re.search(r"```json\n(\{\"files\".*?)```", REFERENCE.read_text(), re.DOTALL)
    assert preflight is not None
    documented = json.loads(preflight[1])
    assert documented.keys() == answers[3].keys()
    assert documented["problems"] == answers[3]["problems"]
