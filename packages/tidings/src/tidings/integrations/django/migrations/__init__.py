"""Django's migrations: each applies what the library's own migrations have, where that is missing."""
