"""What became of positions that ended. Newest first, in pages.

Source: docs.deribit.com, private/get_settlement_history_by_currency and _by_instrument. Only deliveries happen here:
there are no daily settlements (profit is cash at once), and liquidations show as trades. profit_loss is the cash
that moved: an option's payoff or a future's result, less the fee of delivery.
"""

from collections.abc import Callable

from dea_daemon.domain.numbers import ms_to_ns
from dea_daemon.simvenue.deribit.call import Call, Method
from dea_daemon.simvenue.deribit.contract import Contract
from dea_daemon.simvenue.deribit.encodings import ms
from dea_daemon.simvenue.deribit.errors import invalid
from dea_daemon.simvenue.deribit.session import Json
from dea_daemon.simvenue.words import Settled

TYPES = ("settlement", "delivery", "bankruptcy")
NO_MORE = "none"


def get_settlement_history_by_currency(call: Call) -> Json:
    return _page(call, call.exchange.settlements(call.account, call.currency(any_allowed=False), 0))


def get_settlement_history_by_instrument(call: Call) -> Json:
    """Of a contract that has ended, or [] of one that has not."""
    name = call.params.text("instrument_name")
    if name not in call.market.contracts:
        raise invalid("instrument_name", "instrument not found")
    currency = call.market.contracts[name].instrument.settle_currency
    settled = call.exchange.settlements(call.account, currency, 0)
    return _page(call, [one for one in settled if one.instrument == name])


def _page(call: Call, settled: list[Settled]) -> Json:
    """`search_start_timestamp` is the latest to show, as the history is read backwards; `continuation` is how many
    were shown before."""
    params, contracts = call.params, call.market.contracts
    if params.text("type", "delivery", one_of=TYPES) != "delivery":
        settled = []
    latest_ns = ms_to_ns(params.integer("search_start_timestamp", ms(call.now_ns)) + 1) - 1
    rows = [one for one in reversed(settled) if one.ts_ns <= latest_ns]
    token = params.text("continuation", "0")
    if not token.isdecimal():
        raise invalid("continuation", "wrong format")
    end = int(token) + params.integer("count", 20, at_most=1_000)
    shown = [_encoded(contracts[one.instrument], one) for one in rows[int(token) : end]]
    return {"settlements": shown, "continuation": str(end) if end < len(rows) else NO_MORE}


def _encoded(contract: Contract, settled: Settled) -> Json:
    return {
        "type": "delivery",
        "timestamp": ms(settled.ts_ns),
        "instrument_name": settled.instrument,
        "position": contract.amount(settled.lots),
        "mark_price": settled.mark_price,
        "index_price": settled.settlement_price,
        "profit_loss": settled.cash - settled.fee,
        "session_profit_loss": settled.cash - settled.fee,
    }


_READS: tuple[Callable[[Call], Json], ...] = (get_settlement_history_by_currency, get_settlement_history_by_instrument)
METHODS = {f"private/{run.__name__}": Method(run, "trade:read") for run in _READS}
