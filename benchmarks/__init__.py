"""What the program costs, measured; nothing of the program imports this."""
