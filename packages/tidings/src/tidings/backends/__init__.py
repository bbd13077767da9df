"""One technology each, chosen by URL scheme and loaded when first asked for. Backends never import each other."""

STORES = {
    "none": "tidings.backends.no_store",
    "sqlite": "tidings.backends.sqlite",
    "sqlite+apsw": "tidings.backends.sqlite",
    "postgresql": "tidings.backends.postgres",
}
"""URL scheme -> module with `open_store(url, world)`."""

TRANSPORTS = {
    "bullmq": "tidings.backends.bullmq",
    "memory": "tidings.backends.memory",
    "sns": "tidings.backends.sqs",
    "sqs": "tidings.backends.sqs",
}
"""URL scheme -> module with `open_transport(url, world)`, and, where something must be made first, `open_topology`."""

BLOBS = {
    "file": "tidings.backends.folder",
    "s3": "tidings.backends.s3",
}
"""URL scheme -> module with `open_blobs(url, world)`."""
