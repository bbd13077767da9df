"""A proxy that cuts connections, and a witness of what a page in a browser behind it is told of its export."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Page

# Every stream that the page opens: after which entry it asked to go on, and the ids of what it was told.
WITNESS = """
window.streams = [];
const plain = window.fetch;
window.fetch = async (url, options) => {
  const answer = await plain(url, options);
  if (!String(url).endsWith("/events") || !answer.ok) return answer;
  const stream = { after: Number(options.headers["Last-Event-ID"] ?? 0), told: [] };
  window.streams.push(stream);
  const decoder = new TextDecoder();
  let text = "";
  const look = new TransformStream({ transform(chunk, out) {
    text += decoder.decode(chunk, { stream: true });
    const blocks = text.split("\\n\\n");
    text = blocks.pop();
    for (const block of blocks.filter((one) => one.includes("event: progress"))) {
      stream.told.push(Number(block.match(/^id: (\\d+)$/m)?.[1] ?? -1));
    }
    out.enqueue(chunk);
  } });
  return new Response(answer.body.pipeThrough(look), { status: answer.status, headers: answer.headers });
};
"""
SHOWN = "[...document.querySelectorAll('#timeline li')].map((entry) => Number(entry.dataset.sequence))"


class Cutter:
    """Passes connections on to the site, and cuts them when told."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def cut(self) -> None:
        """Break every connection, in the middle of whatever it carries."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()


@dataclass
class Watch:
    """A page that watches an export through a proxy. Make it before the page is opened."""

    page: Page
    cutter: Cutter
    seconds: float = 60.0
    seen_before_cuts: list[int] = field(default_factory=list)

    async def open(self, path: str) -> None:
        await self.page.add_init_script(WITNESS)
        await self.page.goto(f"{self.cutter.address}{path}")

    async def cut_often(self, times: int, step: Callable[[], Awaitable[None]]) -> None:
        """Let a step of the export come, wait until it is shown, cut; every other one comes while nobody listens."""
        for number in range(times):
            if number % 2:
                await self._until(f"window.streams.length > {number}", "the stream was not taken up again")
            last = max(await self.shown())
            await step()
            await self._until(f"Math.max(...{SHOWN}) > {last}", "a step is not shown")
            self.seen_before_cuts.append(max(await self.shown()))
            self.cutter.cut()

    async def over(self) -> None:
        """Wait until the page shows the end."""
        await self._until("document.querySelector('#timeline li[data-kind=completed]')", "the end is not shown")

    async def shown(self) -> list[int]:
        return list(await self.page.evaluate(SHOWN))

    async def told_each_once(self, timeline: Sequence[Any]) -> None:
        """Each step is shown once, in order; each stream went on where the page was, without gap or repetition."""
        assert (await self.shown())[::-1] == [entry["sequence"] for entry in timeline], "not shown exactly once"
        streams = await self.page.evaluate("window.streams")
        assert len(streams) > len(self.seen_before_cuts)
        for stream in streams:
            after, told = stream["after"], stream["told"]
            assert told == list(range(after + 1, after + 1 + len(told))), f"after {after} the page was told {told}"
        for before, stream in zip(self.seen_before_cuts, streams[1:], strict=False):
            assert stream["after"] >= before, f"{before} was shown, and asked for again"

    async def _until(self, holds: str, otherwise: str) -> None:
        ends = asyncio.get_running_loop().time() + self.seconds
        while not await self.page.evaluate(f"Boolean({holds})"):
            assert asyncio.get_running_loop().time() < ends, (
                f"{otherwise}: {await self.page.evaluate('window.streams')}"
            )
            await asyncio.sleep(0.05)
