"""What Tidings is measured beside: raw code on the same file, and neighbours in environments of their own."""
