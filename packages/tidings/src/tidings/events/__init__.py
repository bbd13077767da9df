"""What is said: events, envelopes and their bytes. Pure, no I/O."""
