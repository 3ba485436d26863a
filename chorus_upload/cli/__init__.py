"""The command line: the only package that knows a terminal, and the only one that imports typer or rich."""
