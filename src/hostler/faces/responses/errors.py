"""How this face tells what went wrong: agents call some fields otherwise than its clients."""

from __future__ import annotations

from hostler.faces.http.answers import naming
from hostler.faces.http.openai import tell_openai

tell = naming(
    tell_openai,
    {
        "client_tools": "/tools",
        "content": "/input",
        "history": "/input",
        "json_schema": "/text/format/schema",
        "said": "/items",
    },
)
