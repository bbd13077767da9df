"""Sagas: one business transaction over several services, with a durable state, timers and compensations."""
