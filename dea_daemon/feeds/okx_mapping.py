"""OKX's list of contracts in our words.

OKX counts contracts: of so many dollars (inverse), or coins (linear, options). The value of one is ctVal × ctMult.

Source: OKX API v5, GET /api/v5/public/instruments.
"""

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from dea_daemon.domain.errors import InvariantViolation, VenueError
from dea_daemon.domain.instruments import Instrument, Kind, Payoff
from dea_daemon.domain.numbers import as_decimal, ms_to_ns, to_lots

LISTING = "/api/v5/public/instruments"
_KINDS = {"SPOT": Kind.SPOT, "SWAP": Kind.PERPETUAL, "FUTURES": Kind.FUTURE, "OPTION": Kind.OPTION}


def listing_queries(names: Iterable[str]) -> list[str]:
    """One request a kind; options are listed by family, and only those that `names` names."""
    parts = [name.split("-") for name in names]
    families = dict.fromkeys(f"{part[0]}-{part[1]}" for part in parts if len(part) == 5)
    options = [f"instType=OPTION&instFamily={family}" for family in families]
    return ["instType=SWAP", "instType=FUTURES", "instType=SPOT", *options]


class _Contract(msgspec.Struct, rename="camel"):
    """One row. Everything is text, and empty where it does not apply."""

    inst_id: str
    inst_type: str
    lot_sz: str
    tick_sz: str
    min_sz: str
    base_ccy: str = ""
    quote_ccy: str = ""
    settle_ccy: str = ""
    uly: str = ""
    ct_val: str = ""
    ct_mult: str = ""
    ct_type: str = ""
    exp_time: str = ""
    stk: str = ""
    opt_type: str = ""
    state: str = ""


class _Answer(msgspec.Struct):
    data: list[_Contract]
    code: str = "0"
    msg: str = ""


_answer = msgspec.json.Decoder(_Answer).decode


def instruments_from(body: bytes, venue: str = "okx") -> list[Instrument]:
    """The contracts of one answer to GET instruments; contracts not listed yet (no tick) and kinds the house has
    no word for are left out. Fees are not in it: they stay 0. Raises VenueError if it cannot be read."""
    try:
        answer = _answer(body)
        if answer.code != "0":
            raise VenueError(f"no list of contracts: {answer.code} {answer.msg}")
        return list(_instruments(answer.data, venue))
    except (msgspec.MsgspecError, InvariantViolation, ValueError) as error:
        raise VenueError(f"unreadable list of contracts: {error}") from error


def _instruments(rows: Iterable[_Contract], venue: str) -> Iterable[Instrument]:
    for row in rows:
        if row.inst_type in _KINDS and row.lot_sz and row.tick_sz:
            yield _instrument(row, _KINDS[row.inst_type], venue)


def _instrument(row: _Contract, kind: Kind, venue: str) -> Instrument:
    spot = kind is Kind.SPOT
    base, _, quote = row.uly.partition("-")
    settle = row.settle_ccy or row.quote_ccy
    lot_size = as_decimal(row.lot_sz)
    return Instrument(
        venue=venue,
        name=row.inst_id,
        kind=kind,
        payoff=Payoff.INVERSE if row.ct_type == "inverse" else Payoff.LINEAR,
        underlying=row.base_ccy or base,
        # An option is priced in the coin it settles in: linear in that price.
        quote_currency=row.quote_ccy or (settle if kind is Kind.OPTION else quote),
        settle_currency=settle,
        margin_pool=settle,
        contract_size=Decimal(1) if spot else as_decimal(row.ct_val) * as_decimal(row.ct_mult or "1"),
        lot_size=lot_size,
        tick_size=as_decimal(row.tick_sz),
        min_lots=max(1, to_lots(as_decimal(row.min_sz or row.lot_sz), lot_size, "up")),
        expiry_ns=ms_to_ns(int(row.exp_time)) if row.exp_time and kind in (Kind.FUTURE, Kind.OPTION) else 0,
        strike=float(row.stk or 0.0),
        is_call=row.opt_type == "C",
        tradable=row.state in ("", "live"),
    )
