"""Show results to people: figures, text tables, and an HTML page."""
