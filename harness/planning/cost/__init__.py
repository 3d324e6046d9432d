"""What a plan takes before it is run: time, devices and disk, from past runs like its own; imports no torch."""
