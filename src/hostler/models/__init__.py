"""Models: one module per wire API, each a `core.ports.Model`.

    openai_chat …      one wire API each: writes the request, reads the stream; no I/O
      └ exchange       one question over HTTP; the part they all share
          ├ draft      what was said so far: text, `thinking` tags, `calls` from their fragments
          ├ faults     what went wrong, in one vocabulary
          └ prices     what it cost
    transport          HTTP on aiohttp, behind a protocol of three methods; `sse` reads its bodies
    capabilities       how servers of one wire API differ: data
    scripted           plays a script
    local              weights in a process of this machine; `weights` fetches them
    prompted           gives tools to a model without, in words; `markup` finds the calls in its text
    discover           which model to use when nobody named one

A new wire API is a function that writes the body, a `Reading`, and a class that puts both on a
`Route`; then `testing.model_kit` tells what is still missing.

Invariant: no provider's name outside its own module and the data files.
"""
