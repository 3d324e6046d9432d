"""From a sweep file to jobs: the plan, its cost, submission, and watching it run. Imports no torch."""
