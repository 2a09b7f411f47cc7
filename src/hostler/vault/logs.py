"""Log lines without secrets, for programs whose log is plain: masked for every tenant at once.

A server's lines are masked by `telemetry.masking`, which sees each value of a line.

Invariant: a record is masked before the first handler that has the filter writes it: message,
traceback and stack, and nothing that is wrong with it reaches who logged it.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass

from hostler.vault.vault import SealedVault

UNTOLD = "a line that could not be made"


def mask_logs(vault: SealedVault) -> None:
    """Mask all that the handlers of the root logger write from now on."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(MaskedRecords(vault))


@dataclass(frozen=True, slots=True)
class MaskedRecords:
    """A filter for handlers: lets every record pass, masked."""

    vault: SealedVault

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            told = record.getMessage()
        except Exception:  # noqa: BLE001  a stranger's `__str__`, or arguments that do not fit
            told = record.msg = UNTOLD
            record.args = None
        trace = record.exc_text
        if record.exc_info and trace is None:
            trace = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        masked = self.vault.hide(told)
        if masked != told:
            record.msg, record.args = masked, None
        if trace is not None:  # which the formatter then takes as it is
            record.exc_text = self.vault.hide(trace)
        if record.stack_info is not None:
            record.stack_info = self.vault.hide(record.stack_info)
        return True
