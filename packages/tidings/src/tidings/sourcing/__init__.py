"""The memory: streams of events, the decisions taken on them, the states they add up to, and projections of the log."""
