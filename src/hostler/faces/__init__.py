"""Protocols served from the one log: wire in, wire out, and no rule about runs."""
