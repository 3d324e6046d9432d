"""Planning a sweep: its runs, their cost, submission, and watching them. Imports no torch."""
