"""The rules: what can be written, what follows from it, what to do next.

Six files, read in this order: `errors`, `events`, `codec`, `state`, `ports`, `loop`.
Nothing in here knows a provider, a database or a protocol.
"""
