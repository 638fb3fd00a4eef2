"""Results for people to look at: figures, tables of text, and a page of HTML."""
