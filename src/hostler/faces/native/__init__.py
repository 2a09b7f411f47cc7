"""Hostler's own API: REST to write, JSON pages and Server-Sent Events to read."""
