"""How events and results look: on a terminal, in a log file, as JSON lines."""
