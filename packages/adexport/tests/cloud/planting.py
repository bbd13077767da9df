"""Starts the API for a test, sound or with a planted defect, to show that the test notices it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from cloud_servers import CREDENTIALS, free_port
from local_cloud import Api, Place


def planting(defect: str) -> dict[str, str]:
    """The environment in which a process has a defect, one of `planted/sitecustomize.py`; for "" it has none."""
    return {"PYTHONPATH": str(Path(__file__).parent / "planted"), "PLANTED": defect} if defect else {}


@asynccontextmanager
async def api_at_work(place: Place, defect: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API that runs until the block ends."""
    api = Api(place, free_port(), {**CREDENTIALS, **planting(defect)})
    await asyncio.to_thread(api.start)
    try:
        async with httpx.AsyncClient(base_url=api.address, timeout=60) as client:
            yield client
    finally:
        await asyncio.to_thread(api.stop)
        print(api.said())
