"""What every group of statements stands on."""

from tidings.backends.postgres.driver import Session
from tidings.backends.postgres.fence import Fence


class Speaker:
    """Statements on a session. `touched` collects the topics of what was written."""

    _db: Session
    _lanes: int
    _fence: Fence
    touched: set[str]
