"""znet, a dealer panel: one line of text about one order per call."""
