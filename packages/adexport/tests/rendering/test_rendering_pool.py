"""Rendering processes: results, crashes, time-outs, memory, recycling. Real processes throughout."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager

import pytest

from adexport.events import CellOrder
from adexport.ports import RenderJob
from adexport.rendering_pool import RenderingCrashedError, RenderingPool, RenderingTimedOutError

DESIGN = {
    "version": 1,
    "name": "plain",
    "title": "Plain",
    "background": "#ffffff",
    "layers": [
        {
            "type": "text",
            "id": "headline",
            "text": "{{ headline }}",
            "size": "20%",
            "box": {"left": "5%", "top": "5%", "right": "5%", "bottom": "5%"},
        }
    ],
}


def job(rows=None, sizes=((300, 250),), formats=("jpeg",), max_bytes=None):
    rows = rows or {0: {"headline": "Hello"}}
    cells = [
        CellOrder(index=index, key=str(index), row=row, width=w, height=h, format=format, max_bytes=max_bytes)
        for index, (row, (w, h), format) in enumerate(
            (row, size, format) for row in rows for size in sizes for format in formats
        )
    ]
    return RenderJob(design=json.dumps(DESIGN).encode(), rows=rows, cells=cells, assets={})


@asynccontextmanager
async def pool(**options):
    settings = {"size": 1, "memory_bytes": 2_000_000_000, "seconds": 30.0, "recycle_after": 1000} | options
    async with RenderingPool(**settings) as opened:
        yield opened


def pids(opened):
    return [child.process.pid for child in opened._all]


async def test_results_come_in_order_and_the_same_bytes_from_every_process():
    order = job(sizes=((300, 250), (728, 90)), formats=("png", "jpeg", "webp"))
    async with pool(size=2) as opened:
        first, second = await asyncio.gather(opened.render(order), opened.render(order))
        assert len(pids(opened)) == 2
    assert [each.index for each in first] == list(range(6))
    assert [each.data for each in first] == [each.data for each in second]
    assert all(each.data and not each.cause and each.seconds > 0 for each in first)


async def test_one_bad_cell_does_not_stop_the_others():
    async with pool() as opened:
        results = await opened.render(job(rows={0: {"headline": "Hello"}, 1: {}, 2: {"headline": "Again"}}))
    assert [each.cause for each in results] == ["", "cannot_draw", ""]
    assert "headline" in results[1].reason


async def test_what_cannot_fit_is_reported_with_the_best_size():
    async with pool() as opened:
        (result,) = await opened.render(job(max_bytes=100))
    assert (result.cause, result.verdict) == ("cannot_fit", "cannot_fit")
    assert result.best_bytes == len(result.data) > 100


async def test_a_killed_process_is_a_crash_and_the_next_job_gets_a_new_one():
    async with pool() as opened:
        await opened.render(job())
        (pid,) = pids(opened)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RenderingCrashedError):
            await opened.render(job())
        assert (await opened.render(job()))[0].data
        assert pids(opened) != [pid]


async def test_a_job_over_the_time_limit_is_ended():
    rows = {number: {"headline": f"Hello {number}"} for number in range(200)}
    async with pool(seconds=0.5) as opened:
        await opened.render(job())
        with pytest.raises(RenderingTimedOutError, match="ADEXPORT_RENDER_SECONDS"):
            await opened.render(job(rows=rows, sizes=((2000, 2000),), formats=("png",)))
        assert pids(opened) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space of a process")
async def test_memory_over_the_limit_is_a_crash_of_the_process_only():
    async with pool(memory_bytes=200_000_000) as opened:
        with pytest.raises(RenderingCrashedError, match="ADEXPORT_RENDER_MEMORY_MB"):
            await opened.render(job(sizes=((4096, 4096),), formats=("png",)))
        assert (await opened.render(job()))[0].data


async def test_a_process_is_replaced_after_its_share_of_work():
    async with pool(recycle_after=2) as opened:
        seen = []
        for _ in range(4):
            await opened.render(job())
            seen.append(tuple(pids(opened)))
    assert seen[0] == seen[0] != ()
    assert seen[1] == ()
    assert seen[2] != seen[0]


async def test_leaving_the_pool_ends_busy_processes():
    async with pool() as opened:
        await opened.render(job())
        (pid,) = pids(opened)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_cancelled_job_frees_its_place():
    rows = {number: {"headline": f"Hello {number}"} for number in range(100)}
    async with pool() as opened:
        await opened.render(job())
        task = asyncio.create_task(opened.render(job(rows=rows, sizes=((2000, 2000),), formats=("png",))))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await opened.render(job()))[0].data
