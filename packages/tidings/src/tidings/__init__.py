"""Tidings: event-driven services on one log."""
