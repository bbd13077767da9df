"""Where requests, commands and processes come in."""
