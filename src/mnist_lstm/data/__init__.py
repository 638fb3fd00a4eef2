"""Data sets, where they come from, and images as the model takes them."""
