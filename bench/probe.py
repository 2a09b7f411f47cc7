"""Asks for a session every 10 ms and prints when, the status, and how long the answer took.

A process of its own, with a socket that blocks: what it measures is the server, not the load.
"""

from __future__ import annotations

import socket
import sys
import time

EVERY_S = 0.01


def probe(port: int, secs: float, key: str) -> list[str]:
    """Return a line for each request."""
    request = (
        f"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        "Content-Length: 2\r\n\r\n{}"
    ).encode()
    seen = list[str]()
    with socket.create_connection(("127.0.0.1", port)) as one:
        print("ready", flush=True)
        began = time.perf_counter()
        while (asked := time.perf_counter()) < began + secs:
            one.sendall(request)
            answer = b""
            while not answer.endswith(b"}"):
                answer += one.recv(65536)
            took_s = time.perf_counter() - asked
            seen.append(f"{asked - began},{int(answer[9:12])},{took_s}")
            time.sleep(EVERY_S)  # noqa: TID251  a process that does nothing else
    return seen


if __name__ == "__main__":
    print("\n".join(probe(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])))
