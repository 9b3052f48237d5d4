"""One HTML page for a folder of results."""
