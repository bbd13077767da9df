"""A Lambda function that makes boto3's client of S3 and asks it one thing."""

import os
import time
from pathlib import Path
from typing import Any

import boto3


def handler(event: Any, context: Any) -> None:
    """Note the CPU time of the first call."""
    s3 = boto3.client("s3", endpoint_url=os.environ["ENDPOINT"])
    s3.head_bucket(Bucket=os.environ["BUCKET"])
    Path(os.environ["NOTES"]).write_text(f"{time.process_time():.3f}")
