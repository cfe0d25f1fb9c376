"""The targets of the fuzzers: `make fuzz`."""
