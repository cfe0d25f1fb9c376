"""The command line: one file a command, each composing the rooms below."""
