"""One module a contestant; what runs inside its processes is apart from what the comparison itself needs to know."""
