"""Orders and their charges, as a Django app."""
