"""The champion as a server, and the check of what it is sent."""
