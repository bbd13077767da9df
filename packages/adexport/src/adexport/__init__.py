"""Ad Export: one design, many sizes, rows and formats, as files that ad networks accept."""
