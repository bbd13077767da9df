"""What the tests of faults share: exports that are watched, and what must be true of all of them at the end."""

import asyncio
import hashlib
import io
import json
import time
import zipfile
from collections import Counter
from typing import Any

import asyncpg
import boto3
import httpx
from kept_jobs import jobs
from local_cloud import Place

OVER = ("done", "dead", "cancelled")
ENDINGS = ("completed", "failed")
BATCH = "adexport.batch.requested"


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
            while (state := (await self._get(home))["export"]["state"]) not in OVER:
                assert time.monotonic() < ends, f"{home} is {state}: {await self._get(f'{home}/timeline')}"
                await asyncio.sleep(0.2)

    async def check(self, *, failed: int = 0) -> None:
        """Every export has ended done with all its files, or failed with a reason; nothing is there twice.

        At most `failed` of them may have files that failed.
        """
        unmade = [home for home in self.homes if not await self._ended(home)]
        assert len(unmade) <= failed, [await self._get(f"{home}/timeline") for home in unmade]
        listed = await self._listed()
        assert sorted(listed) == sorted(home.rpartition("/")[2] for home in self.homes), "not those that were accepted"
        await self._database(listed)
        await self._results_have_landed()
        await asyncio.to_thread(self._every_object_is_what_its_name_says, await self._digests())

    async def _get(self, path: str) -> Any:
        answer = await self._client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    async def _listed(self) -> list[str]:
        page = await self._get("/v1/exports?limit=500")
        assert page["next_cursor"] is None
        return [export["id"] for export in page["items"]]

    async def _ended(self, home: str) -> bool:
        """Look at one export; say whether it has all its files."""
        export = (await self._get(home))["export"]
        cells = await self._get(f"{home}/cells")
        timeline = await self._get(f"{home}/timeline")
        assert [entry["sequence"] for entry in timeline] == list(range(1, len(timeline) + 1))
        assert [entry["kind"] for entry in timeline if entry["kind"] in ENDINGS] == [timeline[-1]["kind"]]
        states = Counter(cell["state"] for cell in cells)
        assert (export["total"], export["done"], export["failed"]) == (len(cells), states["done"], states["dead"])
        assert set(states) <= {"done", "dead"}, f"{home} has ended, and a file of it has not: {states}"
        told = Counter(
            cell["index"] for entry in timeline for cell in entry["detail"]["cells"] if cell["state"] == "done"
        )
        assert told == Counter(cell["index"] for cell in cells if cell["state"] == "done"), "not told of exactly once"
        if not states["dead"]:
            assert export["state"] == "done"
            await self._files_are_all_there(home, cells)
            return True
        assert all(cell["cause"] and cell["reason"] for cell in cells if cell["state"] == "dead"), cells
        return False

    async def _files_are_all_there(self, home: str, cells: list[dict[str, Any]]) -> None:
        manifest = {entry["file"]: entry["sha256"] for entry in await self._get(f"{home}/manifest.json")}
        assert manifest == {cell["name"]: cell["sha256"] for cell in cells}
        archive = (await self._client.get(f"{home}/archive", follow_redirects=True)).content
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            assert sorted(files.namelist()) == sorted([*manifest, "manifest.csv", "manifest.json"])
            for name, digest in manifest.items():
                assert hashlib.sha256(files.read(name)).hexdigest() == digest

    async def _fetch(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self._place.store)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *args)]
        finally:
            await connection.close()

    async def _database(self, listed: list[str]) -> None:
        """No event is there twice, each batch had one result, each export ended once; nothing is left over."""
        assert await self._fetch("SELECT source, id FROM tidings.log GROUP BY 1, 2 HAVING count(*) > 1") == []
        of_batches = (
            "SELECT causation, type FROM tidings.log WHERE source <> 'adexport' GROUP BY 1, 2 HAVING count(*) > 1"
        )
        assert await self._fetch(of_batches) == [], "a batch had two results"
        ended = await self._fetch(
            "SELECT convert_from(data, 'UTF8') FROM tidings.log WHERE type IN ($1, $2)",
            "adexport.export.completed", "adexport.export.failed",
        )  # fmt: skip
        assert sorted(json.loads(data)["export_id"] for (data,) in ended) == sorted(listed), "ended other than once"
        counted = "SELECT export_id, count(*) FILTER (WHERE state = 'done'), count(*) FROM adexport_cell GROUP BY 1"
        written = await self._fetch("SELECT id, done, total FROM adexport_exports_v1")
        assert sorted(await self._fetch(counted)) == sorted(written)
        # What SQS gave up after its function had died three times stays for an operator to see; it was asked for again.
        left = await self._fetch(
            "SELECT h.subscription, h.state, l.type FROM tidings.held h JOIN tidings.log l USING (position)"
        )
        assert set(left) <= {("adexport:relay", "dead", BATCH)}, left

    async def landed(self) -> set[str]:
        """The ids of the results that are in the log."""
        return {event for (event,) in await self._fetch("SELECT id FROM tidings.log WHERE source <> 'adexport'")}

    async def _results_have_landed(self) -> None:
        """What BullMQ calls complete is in the log; no job has failed, and soon none waits."""
        ends = time.monotonic() + 30
        while (seen := jobs(self._place)).kept:
            assert time.monotonic() < ends, f"jobs of ended exports still wait: {sorted(seen.kept)}"
            await asyncio.sleep(0.1)
        assert seen.failed == frozenset()
        assert seen.completed <= await self.landed(), "a job was completed and has not landed"

    async def _digests(self) -> set[str]:
        """What the bucket should hold: files, and what was asked for."""
        files = await self._fetch(
            "SELECT sha256 FROM adexport_cell WHERE state = 'done' UNION SELECT snapshot FROM adexport_exports_v1"
        )
        return {digest for (digest,) in files}

    def _every_object_is_what_its_name_says(self, wanted: set[str]) -> None:
        s3 = boto3.client("s3", endpoint_url=self._place.endpoint)
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=self._place.bucket, Prefix="ads/")
        found = [version for page in pages for version in page.get("Versions", [])]
        once = Counter(each["Key"] for each in found if each["Key"].startswith(("ads/files/", "ads/outcomes/")))
        assert {key: count for key, count in once.items() if count > 1} == {}
        files = {key.rpartition("/")[2]: key for key in once if key.startswith("ads/files/")}
        assert set(files) == wanted
        for digest, key in files.items():
            content = s3.get_object(Bucket=self._place.bucket, Key=key)["Body"].read()
            assert hashlib.sha256(content).hexdigest() == digest
