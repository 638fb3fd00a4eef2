"""Trained runs afterwards: found, listed, compared, promoted, made again, and asked."""
