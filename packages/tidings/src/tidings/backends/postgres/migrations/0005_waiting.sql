-- Claims look for the next share that waits. Without this index the planner, whose statistics are mostly of an empty
-- queue, reads all of a long one for each claim.
CREATE INDEX ready_waiting ON tidings.ready (subscription, share, position) WHERE owner IS NULL;
