"""Every error of Ad Export.

AdExportError
|- DesignError        a design document that cannot be used
|- RenderError        a design that cannot be drawn for this row, size or asset
|- StorageError       (retryable) the place of the files cannot be reached or used now
|  `- StorageAwayError  it does not answer: nobody has done anything wrong
`- FileMissingError   no file with this digest is stored

Each carries `retryable` (whether the same call may succeed later) and a message that says what failed,
why, and what to do.
"""


class AdExportError(Exception):
    """Root of all errors that Ad Export raises on purpose."""

    retryable = False


class DesignError(AdExportError):
    """A design document is not valid. `path` is the JSON path of the culprit, such as `$.layers[2].size`."""

    def __init__(self, path: str, reason: str) -> None:
        """Keep the JSON `path` beside the `reason`, which also says what is allowed."""
        super().__init__(f"The design is not valid at {path}: {reason}")
        self.path = path
        self.reason = reason


class RenderError(AdExportError):
    """A design cannot be drawn with these fields and assets. `layer` is the id of the layer at fault."""

    def __init__(self, layer: str, reason: str) -> None:
        """Keep the `layer` id beside the `reason`, which also says what to do."""
        super().__init__(f"Layer {layer!r} cannot be drawn: {reason}")
        self.layer = layer
        self.reason = reason

    def __reduce__(self) -> tuple[type["RenderError"], tuple[str, str]]:
        """Pickle by the two arguments, so the error survives the way out of a worker process."""
        return RenderError, (self.layer, self.reason)


class StorageError(AdExportError):
    """The place of the files cannot be written or read now (full, read-only, out of reach, gone)."""

    retryable = True


class StorageAwayError(StorageError):
    """The place of the files does not answer now."""


class FileMissingError(AdExportError):
    """No file with this digest is stored."""

    retryable = False

    @classmethod
    def of(cls, digest: str) -> "FileMissingError":
        """The error about one digest."""
        return cls(f"No file with the digest {digest[:12]}… is stored. It may have been removed.")
