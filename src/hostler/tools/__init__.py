"""Tools: functions of the user's, and those that come with Hostler.

Each is a `core.ports.Tool`: a spec for the model, and a call that returns what the model reads.

Invariant: nothing here guards anything; time-outs, repair, limits and errors are the toolbox's.
"""
