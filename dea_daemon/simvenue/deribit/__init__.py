"""Deribit's dialect of the simulated venue: JSON-RPC requests in, replies and notifications out.

In: parsed requests, HTTP Authorization headers, the time. Out: Deribit's own JSON, and the witness's lines.
Must never know: a socket, a clock. Field names, error codes and behaviour follow docs.deribit.com (API v2.1.1).
"""

from dea_daemon.simvenue.deribit.dialect import Deribit, Reply
from dea_daemon.simvenue.deribit.errors import ApiError
from dea_daemon.simvenue.deribit.keys import Key
from dea_daemon.simvenue.deribit.limits import Limits
from dea_daemon.simvenue.deribit.session import Session

__all__ = ["ApiError", "Deribit", "Key", "Limits", "Reply", "Session"]
