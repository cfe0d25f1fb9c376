"""What the fuzzers feed: `make fuzz`."""
