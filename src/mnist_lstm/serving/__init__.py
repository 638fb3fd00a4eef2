"""Serve the champion over HTTP, and check the requests."""
