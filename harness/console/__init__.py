"""Console: options of the commands, text for people, progress, and the start of every command."""
