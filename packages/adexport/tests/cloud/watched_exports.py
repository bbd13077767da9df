"""What the tests of faults share: exports that are watched, and what must be true of all of them at the end."""

import asyncio
import hashlib
import io
import time
import zipfile
from collections import Counter
from typing import Any

import asyncpg
import boto3
import httpx
from local_cloud import Place

OVER = ("done", "dead", "cancelled")


class Exports:
    """Exports that the API has accepted."""

    def __init__(self, client: httpx.AsyncClient, place: Place) -> None:
        self._client = client
        self._place = place
        self.homes: list[str] = []
        self.slowest = 0.0

    async def ask(self, body: dict[str, Any]) -> str:
        """Ask for one; the answer must be 202, whatever is away."""
        began = time.monotonic()
        answer = await self._client.post("/v1/exports", json=body)
        self.slowest = max(self.slowest, time.monotonic() - began)
        assert answer.status_code == 202, answer.text
        self.homes.append(answer.headers["location"])
        return self.homes[-1]

    async def pages_load(self) -> None:
        """The list and the newest export are there to be looked at."""
        for path in ("/", self.homes[-1].removeprefix("/v1")):
            answer = await self._client.get(path, headers={"Accept": "text/html"}, follow_redirects=True)
            assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:500]}"

    async def all_over(self, seconds: float) -> None:
        """Wait until every export has ended."""
        ends = time.monotonic() + seconds
        for home in self.homes:
            while (state := (await self._client.get(home)).json()["export"]["state"]) not in OVER:
                assert time.monotonic() < ends, (
                    f"{home} is {state}: {(await self._client.get(f'{home}/timeline')).text}"
                )
                await asyncio.sleep(0.2)

    async def check(self, *, failed: int = 0) -> None:
        """Every export has ended done with all its files, or failed with a reason; nothing is there twice."""
        dead = 0
        for home in self.homes:
            export = (await self._client.get(home)).json()["export"]
            cells = (await self._client.get(f"{home}/cells")).json()
            if export["state"] != "done" or export["failed"]:
                dead += 1
                assert all(cell["reason"] for cell in cells if cell["state"] != "done"), cells
                continue
            assert export["done"] == export["total"] == len(cells)
            archive = (await self._client.get(f"{home}/archive", follow_redirects=True)).content
            with zipfile.ZipFile(io.BytesIO(archive)) as files:
                assert len(files.namelist()) == len(cells) + 2
                for cell in cells:
                    assert hashlib.sha256(files.read(cell["name"])).hexdigest() == cell["sha256"]
            timeline = (await self._client.get(f"{home}/timeline")).json()
            told = Counter(cell["index"] for entry in timeline for cell in entry["detail"]["cells"])
            assert set(told.values()) == {1}, "a file was told of twice"
        assert dead <= failed
        await self._no_row_twice()
        await asyncio.to_thread(self._every_object_is_what_its_name_says)

    async def landed(self) -> set[str]:
        """The ids of the results that are in the log."""
        connection = await asyncpg.connect(self._place.store)
        try:
            return {
                row["id"] for row in await connection.fetch("SELECT id FROM tidings.log WHERE source <> 'adexport'")
            }
        finally:
            await connection.close()

    async def _no_row_twice(self) -> None:
        """One result of each batch that was asked for has landed, however often it was sent."""
        connection = await asyncpg.connect(self._place.store)
        try:
            twice = await connection.fetch("SELECT source, id FROM tidings.log GROUP BY source, id HAVING count(*) > 1")
        finally:
            await connection.close()
        assert twice == []

    def _every_object_is_what_its_name_says(self) -> None:
        s3 = boto3.client("s3", endpoint_url=self._place.endpoint)
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=self._place.bucket, Prefix="ads/files/")
        found = [version for page in pages for version in page.get("Versions", [])]
        assert {key: count for key, count in Counter(each["Key"] for each in found).items() if count > 1} == {}
        for each in found:
            content = s3.get_object(Bucket=self._place.bucket, Key=each["Key"])["Body"].read()
            assert hashlib.sha256(content).hexdigest() == each["Key"].rpartition("/")[2]
