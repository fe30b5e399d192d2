"""What passes between the core and those who fit volatility surfaces: a chain of quotes out, smiles back."""

from enum import IntEnum

import msgspec

TENOR_DAYS = (7.0, 30.0, 90.0)
"""Constant maturities that a surface is told at."""


class Rung(IntEnum):
    """How much of a smile its own quotes say, from most to least."""

    FITTED = 1  # six quotes or more: local volatility through them
    SHAPED = 2  # five: their own eSSVI
    LEANING = 3  # two to four: level their own, skew and curvature the neighbours'
    LIFTED = 4  # one: the neighbours' shape at its level
    BETWEEN = 5  # none: between its neighbours in time


class Chain(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Quotes of the options on one underlying as they stood at `utc_ns`; [M] each, in any order.

    forward, strike, bid, ask and tick in USD per coin of underlying; bid 0: nobody bids, ask NaN: nobody offers.
    age_s is how long ago the quote was heard. `expiries` are all that a smile is wanted of, quoted or not.
    """

    underlying: str
    utc_ns: int
    expiries: tuple[int, ...]
    expiry_ns: tuple[int, ...]
    forward: tuple[float, ...]
    strike: tuple[float, ...]
    call: tuple[bool, ...]
    bid: tuple[float, ...]
    ask: tuple[float, ...]
    tick: tuple[float, ...]
    age_s: tuple[float, ...]


class Smile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One expiry of a surface. `variance` is total variance σ²τ at the nodes of `pricing.surface.lattice`; low and
    high are the ends of what was quoted, in k = ln(K/F), NaN where nothing was.

    quotes were used, dropped ones left out as contradicting the others; inside is how many of those used have the
    surface within their bid and ask.
    """

    expiry_ns: int
    forward: float
    variance: tuple[float, ...]
    rung: Rung
    low: float
    high: float
    quotes: int = 0
    dropped: int = 0
    inside: int = 0


class Tenor(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The surface at a constant maturity: volatility at the money, that of the call less that of the put of 25 delta,
    and their mean over the money's. NaN beyond the expiries there are."""

    days: float
    atm: float
    risk_reversal: float
    butterfly: float


class Quality(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How good a fit is. rmse in volatility points, of the mids used; spread_ratio is the root mean square of the
    same over half the spread; min_g the least of Gatheral's butterfly function on |k| ≤ 1.5, calendar the number of
    adjacent pairs where total variance falls with time there."""

    quotes: int = 0
    dropped: int = 0
    inside: float = float("nan")
    rmse_vol_pts: float = float("nan")
    spread_ratio: float = float("nan")
    min_g: float = float("nan")
    calendar_violations: int = 0
    fallback_slices: int = 0
    fit_ms: float = 0.0
