"""The way out: wrap an event, write it in the caller's transaction, carry it to a transport."""
