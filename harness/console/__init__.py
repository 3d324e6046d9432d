"""How commands talk to a person: options, the terminal, progress, and how a command is started."""
