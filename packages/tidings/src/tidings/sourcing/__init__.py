"""The memory: streams of events, the decisions taken on them, and the states they add up to."""
