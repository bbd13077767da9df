"""A Lambda function that makes aiobotocore's client of S3 and asks it one thing."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from aiobotocore.session import get_session


async def ask() -> None:
    """Ask S3 whether a bucket is there."""
    async with get_session().create_client("s3", endpoint_url=os.environ["ENDPOINT"]) as s3:
        await s3.head_bucket(Bucket=os.environ["BUCKET"])


def handler(event: Any, context: Any) -> None:
    """Note the CPU time of the first call."""
    asyncio.run(ask())
    Path(os.environ["NOTES"]).write_text(f"{time.process_time():.3f}")
