"""Asks an Ad Export for many small exports at a steady pace, and says how long each answer took.

In a process of its own, so that what is measured waits for nothing else: `python tools/asking.py ADDRESS COUNT SECONDS
WORDS` prints one line of JSON. Each request has its time; one that is sent late counts from when it was due, so that a
slow service cannot slow down who asks.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

DESIGN = {
    "version": 1, "name": "small", "title": "Small", "background": "#ffffff", "sizes": ["300x250"],
    "layers": [
        {
            "type": "text", "id": "headline", "text": "{{ headline }}", "size": "20%",
            "box": {"left": "5%", "top": "5%", "right": "5%", "bottom": "5%"},
        }
    ],
}  # fmt: skip
READ_EVERY, PAGE_EVERY = 5, 20
LONGEST_SECONDS = 120.0


@dataclass
class Answers:
    """What came of it: seconds by kind (post, read, page), the ids of the exports, and what was refused, in words."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"post": [], "read": [], "page": []})
    exports: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    took: float = 0.0

    def percentile(self, kind: str, percent: float) -> float:
        """Milliseconds, by the nearest rank."""
        values = sorted(self.seconds[kind])
        return 1000 * values[min(len(values) - 1, int(len(values) * percent / 100))]


class Asking:
    """One client: every fifth export is looked at through the API, with every twentieth the list as a page."""

    def __init__(self, session: aiohttp.ClientSession, words: str) -> None:
        self._session = session
        self._words = words
        self.answers = Answers()

    async def ask(self, number: int, due: float) -> None:
        """Ask for one export of one file, then look."""
        body = small_order(f"{self._words} {number}")
        said = await self._timed("post", due, 202, "POST", "/v1/exports", json=body)
        if said is None:
            return
        home = json.loads(said)["export"]["id"]
        self.answers.exports.append(home)
        if number % READ_EVERY == 0:
            await self._timed("read", time.monotonic(), 200, "GET", f"/v1/exports/{home}")
        if number % PAGE_EVERY == 0:
            await self._timed("page", time.monotonic(), 200, "GET", "/exports", headers={"Accept": "text/html"})

    async def _timed(self, kind: str, since: float, wanted: int, method: str, path: str, **more: Any) -> bytes | None:
        try:
            async with self._session.request(method, path, **more) as answer:
                said = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answers.refused.append(f"{method} {path}: {error!r}")
            return None
        self.answers.seconds[kind].append(time.monotonic() - since)
        if answer.status != wanted:
            self.answers.refused.append(f"{method} {path}: {answer.status} {said[:300].decode('utf-8', 'replace')}")
            return None
        return said


def small_order(headline: str) -> dict[str, Any]:
    """The body of an export of one JPEG."""
    return {"design": DESIGN, "rows": [{"headline": headline}], "formats": ["jpeg"]}


async def ask_at_a_pace(address: str, count: int, seconds: float, words: str) -> Answers:
    """Ask for `count` exports within `seconds`, evenly."""
    timeout = aiohttp.ClientTimeout(total=LONGEST_SECONDS)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(address, connector=connector, timeout=timeout) as session:
        asking, began, tasks = Asking(session, words), time.monotonic(), []
        for number in range(count):
            due = began + number * seconds / count
            await asyncio.sleep(max(due - time.monotonic(), 0))
            tasks.append(asyncio.create_task(asking.ask(number, due)))
        asking.answers.took = time.monotonic() - began
        await asyncio.gather(*tasks)
    return asking.answers


async def asked(address: str, count: int, seconds: float, words: str) -> Answers:
    """The same from a process of its own."""
    command = [sys.executable, __file__, address, str(count), str(seconds), words]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    return Answers(**json.loads(said))


if __name__ == "__main__":
    where, how_many, how_long, what = sys.argv[1:]
    print(json.dumps(asdict(asyncio.run(ask_at_a_pace(where, int(how_many), float(how_long), what)))))
