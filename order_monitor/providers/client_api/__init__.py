"""The client API of barakat and apstore: JSON, many orders per call."""
