"""Deribit's error codes and messages, and the venue's refusals in those words.

Source: docs.deribit.com, RPC error codes. Reasons in `data` are as observed from the test venue.
"""

from typing import Any

from dea_daemon.domain.instruments import Side
from dea_daemon.simvenue.words import Refused

MESSAGES = {
    10002: "qty_too_low",
    10003: "order_overlap",
    10004: "order_not_found",
    10005: "price_too_low",
    10007: "price_too_high",
    10009: "not_enough_funds",
    10010: "already_closed",
    10013: "pme_max_total_open_orders",
    10019: "locked_by_admin",
    10021: "invalid_amount",
    10028: "too_many_requests",
    10030: "must_be_websocket_request",
    10033: "not_implemented",
    10040: "retry",
    10041: "settlement_in_progress",
    10043: "price_wrong_tick",
    11030: "other_reject",
    11038: "no_adv_for_futures",
    11044: "not_open_order",
    11047: "unsupported_arg_combination",
    11050: "bad_request",
    11051: "system_maintenance",
    11054: "post_only_reject",
    11055: "post_only_not_allowed",
    13004: "invalid_credentials",
    13009: "unauthorized",
    13021: "forbidden",
    13778: "raw_subscriptions_not_available_for_unauthorized",
    13888: "timed_out",
    -32600: "request entity too large",
    -32601: "Method not found",
    -32602: "Invalid params",
    -32700: "Parse error",
}


class ApiError(Exception):
    """An error reply. `detail` is appended to the message, as Deribit does for limits and other rejects."""

    def __init__(self, code: int, detail: str = "", **data: str) -> None:
        self.code = code
        self.message = f"{MESSAGES[code]} {detail}".rstrip()
        self.data = data
        super().__init__(f"{code} {self.message}")

    def body(self) -> dict[str, Any]:
        """The JSON-RPC error object."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        return error | {"data": self.data} if self.data else error

    @property
    def status(self) -> int:
        """The HTTP status that goes with it."""
        return 429 if self.code == 10028 else 400


def invalid(param: str, reason: str) -> ApiError:
    """Invalid params, naming the one at fault."""
    return ApiError(-32602, reason=reason, param=param)


_CODES = {
    "order_not_found": 10004,
    "order_closed": 10010,
    "invalid_amount": 10021,
    "invalid_price": 10043,
    "post_only_reject": 11054,
    "not_enough_funds": 10009,
    "expired_request": 13888,
    "too_many_orders": 10013,
    "self_trade": 10003,
    "settlement_in_progress": 10041,
    "locked_by_admin": 10019,
    "system_maintenance": 11051,
}


def refusal(refused: Refused, side: Side | None = None) -> ApiError:
    """The venue's no in Deribit's words; `side` is the refused order's."""
    if refused.code == "instrument_not_found":
        return invalid("instrument_name", "instrument not found")
    if refused.code == "reduce_only_reject":
        return ApiError(11030, "invalid_reduce_only_order")
    if refused.code == "price_too_far":
        return ApiError(10005 if side is Side.SELL else 10007, reason=refused.why)
    return ApiError(_CODES[refused.code])
