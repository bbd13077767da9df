"""Images from outside: checked before decoding, re-encoded, stored by content."""
