"""Secrets at rest and in flight: sealed in rows, opened for one use, masked wherever text goes."""
