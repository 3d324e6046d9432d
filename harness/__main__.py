"""``python -m harness SUBCOMMAND``."""

from harness.console.app import main

main()
