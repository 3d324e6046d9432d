"""A sweep's tables: their text, their formats, and the folder they are written to."""
