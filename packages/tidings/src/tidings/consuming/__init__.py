"""The way in: from the log, or a broker, to a handler's settled effects."""
