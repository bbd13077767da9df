"""What every group of statements stands on."""

from tidings.backends.postgres.driver import Session
from tidings.backends.postgres.fence import Fence


class Speaker:
    """Statements on a session. `touched` collects the topics of what was written.

    `_locking`: what is read in order to be changed is locked, until the transaction ends.
    """

    _db: Session
    _lanes: int
    _fence: Fence
    _locking: bool
    touched: set[str]
