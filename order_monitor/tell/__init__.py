"""Who is told how the program is."""
