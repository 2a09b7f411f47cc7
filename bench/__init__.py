"""What does Hostler cost?  One file per question, one table, the figures kept as data.

    python -m bench                                   all questions
    python -m bench turn paced --reps 3 --secs 5      some of them
    python -m bench --against bench/results/OLD.json  beside an older run

How it measures.  A model server (`mock`) sends prepared bytes; this process drives the load with a
client that does next to nothing (`bare`); each server under test is a process of its own, started
as users start it, so that its CPU time is counted alone.  Beside Hostler runs the *floor*
(`floor`): a server on bare sockets that does the same turn and stores hardly anything.  It is the
yardstick: on a shared machine compare the ratios of one run, not seconds of two.

Medians of `--reps` repetitions, servers taking turns; the spread is half of highest less lowest.
"""
