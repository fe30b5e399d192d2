"""A portfolio written down by hand: prices, cash and positions in a YAML file, with errors that show the place.

    portfolio:
      as_of: 2026-01-05T08:00:00Z
      prices: {BTC: 65_000}
      cash: {BTC: 2, USDC: 100_000}
      positions:
        - {contract: BTC-PERPETUAL, amount: -50_000}
        - {contract: BTC-27MAR26-70000-C, amount: 3, iv: 0.52}

Amounts and prices are Deribit's: USD for inverse futures, coins otherwise; an option settled in coin is priced in it.
"""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.instruments import Instrument, Kind, Payoff
from dea_daemon.domain.numbers import NS_PER_S, as_decimal
from dea_daemon.domain.parameters import Finite, NonNegative, Positive, Section
from dea_daemon.shell.pydantic_errors import problems
from dea_daemon.shell.yaml_errors import Location, Problem, Source, read

STABLE = ("USD", "USDC", "USDT")  # taken at 1 USD unless priced
VENUE = "portfolio"
_EXPIRES = timedelta(hours=8)  # of the day, UTC
_NAME = re.compile(
    r"(?P<underlying>[A-Z0-9]+)(?:_(?P<quote>[A-Z0-9]+))?-"
    r"(?:PERPETUAL|(?P<expiry>\d{1,2}[A-Z]{3}\d{2})(?:-(?P<strike>\d+(?:d\d+)?)-(?P<type>[CP]))?)"
)


class Position(Section):
    """One contract held: by its name, or spelled out."""

    contract: str | None = Field(None, description="Deribit's name, such as BTC-27MAR26-70000-C; or spell it out:")
    kind: Literal["perpetual", "future", "option"] | None = Field(None, description="what it is")
    underlying: str | None = Field(None, description="such as BTC")
    settle: str | None = Field(None, description="currency it settles in; the underlying itself without a word")
    expiry: str | None = Field(None, description="27MAR26, 2026-03-27 (08:00 UTC), or with a time")
    strike: Positive | None = Field(None, description="USD")
    type: Literal["call", "put"] | None = Field(None, description="of an option")

    amount: Finite = Field(description="signed: USD of inverse futures, coins otherwise")
    price: NonNegative | None = Field(None, description="as it is quoted; a perpetual's is the index without a word")
    iv: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None, description="an option's implied volatility, a year's fraction; or its price"
    )
    forward: Positive | None = Field(None, description="of its expiry; the future's, or the index, without a word")
    funding_8h: Finite = Field(0.0, description="a perpetual's funding rate")
    entry_price: Positive | None = Field(None, description="of a future whose profit is not in the cash yet")


class Portfolio(Section):
    """What is held, and at what prices."""

    as_of: str | None = Field(None, description="a time, UTC; now without a word")
    prices: dict[str, Positive] = Field(description="index in USD of each underlying, and of coins held")
    cash: dict[str, Finite] = Field({}, description="by currency, without what positions are worth")
    positions: tuple[Position, ...] = Field((), description="contracts held")


class PortfolioFile(Section):
    """The file."""

    portfolio: Portfolio = Field(description="prices, cash, positions")


class Held(NamedTuple):
    """A position whose contract is understood; one lot is the whole of it, bought or sold."""

    instrument: Instrument
    lots: int
    told: Position
    location: Location


class Statement(NamedTuple):
    """The file understood. `refusal` tells what is found wrong only when it is valued."""

    utc_ns: int
    prices: dict[str, float]
    cash: dict[str, float]
    held: tuple[Held, ...]
    source: Source

    def refusal(self, held: Held, option: str, why: str) -> ConfigError:
        """An error at an option of a position."""
        return self.source.refusal([Problem((*held.location, option), why)])


def is_portfolio(path: Path) -> bool:
    """Whether the file has the section `portfolio` rather than a daemon's configuration. Wrong files say no."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return False
    return re.search(r"^[\"']?portfolio[\"']?\s*:", text, re.MULTILINE) is not None


def load_portfolio(path: Path) -> Statement:
    """Read and check. Raises ConfigError, with every problem and its place."""
    source = read(path)
    found = [Problem(location, "has no value: give one, or remove the option", True) for location in source.empty]
    told: Portfolio | None = None
    try:
        told = PortfolioFile.model_validate_json(json.dumps(source.data), strict=True).portfolio
    except ValidationError as error:
        found += [p for p in problems(error, PortfolioFile) if p.location not in source.empty]
    if told is None or found:
        raise source.refusal(found)
    held, utc_ns = _understood(told, found)
    found += _contradictions(told, held, utc_ns)
    if found:
        raise source.refusal(found)
    prices = dict.fromkeys(STABLE, 1.0) | told.prices
    return Statement(utc_ns, prices, told.cash, tuple(held), source)


# --- what is meant ------------------------------------------------------------------------------------------------


def _understood(told: Portfolio, found: list[Problem]) -> tuple[list[Held], int]:
    """The positions whose contract is clear, and the time; what is not clear goes to `found`."""
    utc_ns = time.time_ns()
    if told.as_of is not None:
        try:
            utc_ns = _ns(_moment(told.as_of, timedelta()))
        except ValueError:
            found.append(Problem(("portfolio", "as_of"), f"no time: '{told.as_of}'; write 2026-01-05T08:00:00Z"))
    held = []
    for i, position in enumerate(told.positions):
        here = ("portfolio", "positions", i)
        try:
            instrument = _instrument(_spelled(position))
        except _Unclear as error:
            named = position.contract is not None and error.option not in position.model_fields_set
            found.append(Problem((*here, "contract" if named else error.option), error.why))
        else:
            held.append(Held(instrument, 1 if position.amount > 0 else -1, position, here))
    return held, utc_ns


class _Unclear(ValueError):
    """An option of a position that cannot be understood."""

    def __init__(self, option: str, why: str) -> None:
        super().__init__(why)
        self.option, self.why = option, why


def _spelled(position: Position) -> Position:
    """With every field a contract's name stands for."""
    names = ("kind", "underlying", "settle", "expiry", "strike", "type")
    if position.contract is None:
        return position
    doubled = [name for name in names if getattr(position, name) is not None]
    if doubled:
        raise _Unclear(doubled[0], "the contract's name says it already")
    match = _NAME.fullmatch(position.contract)
    if match is None:
        spot = " (spot is cash)" if re.fullmatch(r"[A-Z0-9]+_[A-Z0-9]+", position.contract) else ""
        raise _Unclear("contract", f"no contract's name: '{position.contract}'{spot}; such as BTC-27MAR26-70000-C")
    strike = match["strike"]
    fields = {
        "kind": "option" if strike else "future" if match["expiry"] else "perpetual",
        "underlying": match["underlying"],
        "settle": match["quote"],
        "expiry": match["expiry"],
        "strike": float(strike.replace("d", ".")) if strike else None,
        "type": {"C": "call", "P": "put"}.get(match["type"] or ""),
    }
    return position.model_copy(update=fields)


_WANTED = {"perpetual": (), "future": ("expiry",), "option": ("expiry", "strike", "type")}


def _instrument(told: Position) -> Instrument:
    """The contract, with one lot as large as the position. Raises _Unclear."""
    if told.kind is None or told.underlying is None:
        raise _Unclear("kind", "missing: name the contract, or give kind and underlying")
    for name in ("expiry", "strike", "type"):
        given, wanted = getattr(told, name) is not None, name in _WANTED[told.kind]
        if given != wanted:
            raise _Unclear(name, f"missing: {_a(told.kind)} has one" if wanted else f"{_a(told.kind)} has none")
    if told.amount == 0:
        raise _Unclear("amount", "nothing is held: remove the position")
    settle = told.settle or told.underlying
    coin = settle == told.underlying
    if not coin and settle not in STABLE:
        raise _Unclear("settle", f"must be {told.underlying}, or one of {', '.join(STABLE)}, not '{settle}'")
    option = told.kind == "option"
    return Instrument(
        venue=VENUE,
        name=told.contract or _name(told, settle, coin),
        kind=Kind(told.kind),
        payoff=Payoff.INVERSE if coin and not option else Payoff.LINEAR,
        underlying=told.underlying,
        quote_currency=settle if option or not coin else "USD",
        settle_currency=settle,
        margin_pool=settle,
        contract_size=Decimal(1),
        lot_size=abs(as_decimal(told.amount)),
        tick_size=Decimal(1),
        expiry_ns=_ns(_expiry(told.expiry)) if told.expiry else 0,
        strike=told.strike or 0.0,
        is_call=told.type == "call",
    )


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "option" else f"a {kind}"


def _name(told: Position, settle: str, coin: bool) -> str:
    """As Deribit would call it."""
    base = str(told.underlying) if coin else f"{told.underlying}_{settle}"
    if told.expiry is None:
        return f"{base}-PERPETUAL"
    day = _expiry(told.expiry)
    dated = f"{base}-{day.day}{day:%b%y}".upper()
    if told.strike is None or told.type is None:
        return dated
    return f"{dated}-{told.strike:.10g}-{told.type[0].upper()}".replace(".", "d")


def _expiry(text: str) -> datetime:
    """Raises _Unclear."""
    try:
        if re.fullmatch(r"\d{1,2}[A-Z]{3}\d{2}", text):
            return datetime.strptime(text, "%d%b%y").replace(tzinfo=UTC) + _EXPIRES
        return _moment(text, _EXPIRES)
    except ValueError:
        raise _Unclear("expiry", f"no date: '{text}'; write 27MAR26 or 2026-03-27") from None


def _moment(text: str, of_day: timedelta) -> datetime:
    """A date at that time of day, or a date with a time; UTC without a zone. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment + of_day if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else moment


def _ns(moment: datetime) -> int:
    return round(moment.timestamp()) * NS_PER_S


# --- what does not fit ----------------------------------------------------------------------------------------------


def _contradictions(told: Portfolio, held: list[Held], utc_ns: int) -> Iterator[Problem]:
    """What each option allows by itself but not beside the others."""
    names: set[str] = set()
    for one in held:
        instrument, position, here = one.instrument, one.told, one.location
        at = (*here, "contract" if position.contract else "kind")
        if instrument.name in names:
            yield Problem(at, f"{instrument.name} is listed twice")
        names.add(instrument.name)
        if instrument.underlying not in told.prices:
            yield Problem(("portfolio", "prices"), f"has no price of {instrument.underlying}", on_key=True)
        if instrument.expiry_ns and instrument.expiry_ns <= utc_ns:
            yield Problem((*here, "contract" if position.contract else "expiry"), f"{instrument.name} has expired")
        yield from _misplaced(instrument, position, here, at)
    for currency in told.cash:
        if currency not in told.prices and currency not in STABLE:
            yield Problem(("portfolio", "cash", currency), f"has no price: add {currency} to prices", on_key=True)


def _misplaced(instrument: Instrument, told: Position, here: Location, at: Location) -> Iterator[Problem]:
    """Options of a position that its kind of contract has none of, or must have."""
    option, dated = instrument.kind is Kind.OPTION, instrument.kind is not Kind.PERPETUAL
    if option and (told.iv is None) == (told.price is None):
        yield Problem(at, f"{instrument.name} wants one of iv and price")
    if not option and dated and told.price is None:
        yield Problem(at, f"{instrument.name} wants its price")
    unfit = {
        "iv": told.iv is not None and not option,
        "forward": told.forward is not None and not option,
        "entry_price": told.entry_price is not None and option,
        "funding_8h": told.funding_8h != 0 and dated,
    }
    for name, wrong in unfit.items():
        if wrong:
            yield Problem((*here, name), f"{_a(instrument.kind.value)} has none", on_key=True)
