"""What Tidings is measured beside: raw code on the same file, and neighbours that each run in an environment of their own."""
