"""A place of files for each test: a fresh folder, or a fresh part of a bucket on the stand-in for AWS."""

import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from adexport.adapters.local_copies import LocalCopies
from adexport.adapters.local_files import LocalFiles
from adexport.adapters.s3 import S3Files
from adexport.adapters.s3_address import Bucket

NAME = "adexport-test-files"


@pytest.fixture
def s3(aws_endpoint: str, aws_credentials: None) -> Any:
    """A plain client, to look at what is there and to do harm."""
    return boto3.client("s3", endpoint_url=aws_endpoint)


@pytest.fixture
def bucket(aws_endpoint: str, s3: Any) -> Bucket:
    """A part of its own of a bucket that keeps versions."""
    s3.create_bucket(Bucket=NAME)
    s3.put_bucket_versioning(Bucket=NAME, VersioningConfiguration={"Status": "Enabled"})
    return Bucket(NAME, f"part-{uuid.uuid4().hex[:8]}", aws_endpoint)


@pytest.fixture
def open_s3(bucket: Bucket, tmp_path: Path):
    """Opens the files of the bucket; every use is noted at once, not once a day."""

    @asynccontextmanager
    async def opened(at: Bucket = bucket, **options: Any) -> AsyncIterator[S3Files]:
        copies = LocalCopies(tmp_path / f"copies-{uuid.uuid4().hex[:8]}", 10_000_000)
        async with S3Files(at, copies, **{"rests": timedelta(0), **options}) as files:
            yield files

    return opened


@pytest.fixture(params=["folder", "s3"])
async def files(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalFiles | S3Files]:
    """The same place on both technologies."""
    if request.param == "folder":
        yield LocalFiles(tmp_path / "files")
    else:
        async with request.getfixturevalue("open_s3")() as opened:
            yield opened
