"""From a design and one row of data to pixels."""
