"""Published numbers, and the table that sets them next to a sweep's own results."""
