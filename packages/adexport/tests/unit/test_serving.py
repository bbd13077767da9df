"""The socket that the service listens on."""

import asyncio
import socket

from adexport.entrypoints.serving import listen


async def test_small_answers_leave_at_once() -> None:
    """With Nagle's algorithm the body of an answer waits for the client to acknowledge its head: 40 ms on Linux."""
    accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held_back = not writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.set_result(held_back)
        writer.close()

    with listen("127.0.0.1", 18240) as sock:
        async with await asyncio.start_server(look, sock=sock):
            _, writer = await asyncio.open_connection(*sock.getsockname())
            assert not await accepted
            writer.close()
