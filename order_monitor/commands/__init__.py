"""The command line: one module per command, each opening what it needs from `app`."""
