"""``python -m harness SUBCOMMAND``."""

from harness.cli import main

main()
