"""The command line. Only this package imports typer and rich, parses arguments and sets exit codes."""
