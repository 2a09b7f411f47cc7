"""The error tree.  Every error says who must act, and whether trying again can help.

HostlerError
├── CallerError        the client asked for something it cannot have; a face answers 4xx
│   ├── Malformed      not readable at all (400)
│   ├── Unauthorised   no key, or one we do not know (401)
│   ├── Forbidden      a known caller without this right (403)
│   ├── NotFound       absent, or not yours: the two are never told apart (404)
│   ├── Conflict       not in a state that allows this (409)
│   ├── TooLarge       over a documented limit (413)
│   ├── Invalid        readable, but wrong; names each field (422)
│   └── TooMany        more at once than one caller may have (429)
├── Fenced             another worker drives this session now: stop at once, write nothing
├── Moved              the log grew past what you had read: read it again, then decide
├── Repeated           this write was made before: its answer is kept
├── Unavailable        the store cannot write now; the same call may work later (503)
├── ToolError          a tool failed in a way the model should read about
│   └── ToolDown       what it needs is down: for whoever calls, not for these arguments
└── SetupError         the operator's settings, files or agents are wrong; says which and how
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class HostlerError(Exception):
    """Base of everything this package raises on purpose."""


class CallerError(HostlerError):
    """The request cannot be honoured as sent.  `code` is from a closed, documented list."""

    status = 400
    code = "malformed"

    def __init__(
        self, detail: str, *, code: str | None = None, more: Mapping[str, object] | None = None
    ) -> None:
        """`more` holds further fields of the answer."""
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.more = more or {}


class Malformed(CallerError):
    """The body, a parameter or a cursor cannot be read."""


class Unauthorised(CallerError):
    """No credential, or one that is not known here."""

    status, code = 401, "unauthorised"


class Forbidden(CallerError):
    """The caller is known and lacks this right."""

    status, code = 403, "forbidden"


class NotFound(CallerError):
    """No such thing for this caller."""

    status, code = 404, "not_found"


class Conflict(CallerError):
    """The thing exists, and its state does not allow this."""

    status, code = 409, "conflict"


class TooLarge(CallerError):
    """Over a limit that the documentation names."""

    status, code = 413, "too_large"


class Invalid(CallerError):
    """Well-formed, and wrong.  `fields` holds (JSON pointer, what was expected) pairs."""

    status, code = 422, "invalid"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        fields: Sequence[tuple[str, str]] = (),
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail, code=code, more=more)
        self.fields = tuple(fields)


class TooMany(CallerError):
    """As many as one caller may have at once; one must end, or some time pass, before the next."""

    status, code = 429, "too_many"
    retry_after_s = 1.0


class Fenced(HostlerError):
    """Our claim on the session is stale."""


class Moved(HostlerError):
    """The head is past the `expected` position."""


class Repeated(HostlerError):
    """A `ports.Once` was done before."""


class Unavailable(HostlerError):
    """Nothing was written, unless `code` is `unknown_outcome`; try again in `retry_after_s` seconds."""

    def __init__(
        self, message: str, *, retry_after_s: float = 1.0, code: str = "unavailable"
    ) -> None:
        super().__init__(message)
        self.retry_after_s, self.code = retry_after_s, code


class ToolError(HostlerError):
    """Raise it from a tool: the text becomes the call's outcome, for the model to read."""


class ToolDown(ToolError):
    """Raise it from a tool when what it needs does not answer: calls of it are paused in time."""


class SetupError(HostlerError):
    """Names what is wrong, what was expected and what to do about it."""
