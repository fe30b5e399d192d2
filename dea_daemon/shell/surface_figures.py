"""The live volatility surfaces as plain data: smiles beside the quotes of now, and how far each is to be trusted."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np

from dea_daemon.domain.decisions import View
from dea_daemon.domain.events import SurfaceFitted
from dea_daemon.domain.instruments import FloatArray, IntArray, Universe
from dea_daemon.domain.numbers import NS_PER_DAY, NS_PER_S
from dea_daemon.domain.surfaces import Quality, Smile
from dea_daemon.pricing.implied import implied_volatility
from dea_daemon.pricing.surface.surface import YEAR_NS, Surface
from dea_daemon.pricing.surface.tenors import terms
from dea_daemon.state.market import Market
from dea_daemon.state.surfaces import NONE_YET

Told = dict[str, Any]
TENOR = 30.0  # days: the one that a single line tells
POINTS = 49  # of each smile
K_SHOWN = 1.5  # what the gate looks at
_DIGITS = 6
_TERMS = ("atm", "risk_reversal", "butterfly")


def followed(universe: Universe, utc_ns: int) -> list[int]:
    """The underlyings that have live options here."""
    live = universe.option & (universe.expiry_ns > utc_ns)
    return list(map(int, np.unique(universe.underlying[live])))


def lines(market: Market, utc_ns: int) -> list[Told]:
    """Of each underlying whose options are followed one line; none where no surfaces are wanted."""
    if not market.params.pricing.surface.enabled:
        return []
    return [_line(market, u, utc_ns) for u in followed(market.universe, utc_ns)]


def _line(market: Market, u: int, utc_ns: int) -> Told:
    """`relied` or `why` not; the rest of the one last published, None before there is one."""
    surfaces = market.surfaces
    fitted = surfaces.fitted[u]
    why = surfaces.why[u] or ("" if fitted else NONE_YET)
    quality = fitted.quality if fitted else None
    return {
        "underlying": market.universe.underlyings[u],
        "relied": not why,
        "why": why,
        "age_s": (utc_ns - fitted.chain_utc_ns) / NS_PER_S if fitted else None,
        "expiries": len(fitted.smiles) if fitted else 0,
        **dict(zip(_TERMS, _tenor(fitted, TENOR), strict=True)),
        "jump_z": float(surfaces.jump_z[u]),
        **{name: getattr(quality, name, None) for name in Quality.__struct_fields__},
    }


def _tenor(fitted: SurfaceFitted | None, days: float) -> tuple[float | None, ...]:
    for tenor in fitted.tenors if fitted else ():
        if tenor.days == days:
            return tenor.atm, tenor.risk_reversal, tenor.butterfly
    return None, None, None


def surfaces(market: Market, view: View | None, utc_ns: int) -> Told:
    """All of it: `why` says why there is none to be expected; of each underlying its line, `tenors` and `smiles`."""
    told: Told = {"utc_ns": utc_ns, "why": _none(market, utc_ns), "refused": market.surfaces.refused, "surfaces": []}
    if told["why"]:
        return told
    for u in followed(market.universe, utc_ns):
        fitted, surface = market.surfaces.fitted[u], market.surfaces.surface[u]
        tenors = [msgspec.structs.asdict(tenor) for tenor in fitted.tenors] if fitted else []
        smiles = list(_smiles(market, surface, view, u, utc_ns)) if surface else []
        told["surfaces"].append({**_line(market, u, utc_ns), "tenors": tenors, "smiles": smiles})
    return told


def _none(market: Market, utc_ns: int) -> str:
    if not followed(market.universe, utc_ns):
        return "no options are followed"
    return "" if market.params.pricing.surface.enabled else "switched off: pricing.surface.enabled"


# --- smiles ---------------------------------------------------------------------------------------------------------


class _Quotes(NamedTuple):
    """Of live options [M] in order of strike: their expiry and its forward now, and of those out of the money the
    volatility of bid and ask (NaN elsewhere, and of a side that has none)."""

    expiry_ns: IntArray
    strike: FloatArray
    forward: FloatArray
    bid: FloatArray
    ask: FloatArray


def _smiles(market: Market, surface: Surface, view: View | None, u: int, utc_ns: int) -> Iterator[Told]:
    """Each expiry that is not over: its terms, its curve by k = ln(K/F) and strike, and the quotes there are now."""
    k, iv, said = _shapes(surface)
    quotes = _quotes(view, u)
    moves = market.params.pricing.smile_delta == "sticky_moneyness"
    for s, smile in enumerate(surface.smiles):
        if smile.expiry_ns <= utc_ns:
            continue
        mine = _Quotes(*(column[quotes.expiry_ns == smile.expiry_ns] for column in quotes))
        now = float(np.median(mine.forward)) if len(mine.forward) else math.nan  # accounts may differ
        forward = smile.forward if not moves and math.isfinite(smile.forward) else now
        quoted = np.isfinite(mine.bid) | np.isfinite(mine.ask)
        yield {
            **_head(smile, utc_ns),
            "forward_now": now,
            **dict(zip(_TERMS, said[s].tolist(), strict=True)),
            "k": _short(k[s]),
            "strike": _short(forward * np.exp(k[s])),
            "iv": _short(iv[s]),
            "quoted": {
                "k": _short(np.log(mine.strike[quoted] / forward)),
                "strike": mine.strike[quoted].tolist(),
                "bid_iv": _short(mine.bid[quoted]),
                "ask_iv": _short(mine.ask[quoted]),
            },
        }


def _head(smile: Smile, utc_ns: int) -> Told:
    told = msgspec.structs.asdict(smile)
    del told["variance"]
    when = datetime.fromtimestamp(smile.expiry_ns // NS_PER_S, UTC)
    expiry = f"{when.day}{when:%b%y}".upper()
    return told | {
        "expiry": expiry,
        "days": (smile.expiry_ns - utc_ns) / NS_PER_DAY,
        "rung": smile.rung.name.lower(),
    }


@lru_cache(maxsize=8)  # a surface never changes, and is asked for until the next one comes
def _shapes(surface: Surface) -> tuple[FloatArray, FloatArray, FloatArray]:
    """k and volatility [S, POINTS], over what was quoted and a little more; each smile's terms [S, 3]."""
    count = len(surface.smiles)
    sd = surface.atm * np.sqrt(surface.tau_years)
    low = np.array([smile.low for smile in surface.smiles])
    high = np.array([smile.high for smile in surface.smiles])
    low = np.maximum(np.fmin(low, -2.0 * sd) - 0.3 * sd, -K_SHOWN)
    high = np.minimum(np.fmax(high, 2.0 * sd) + 0.3 * sd, K_SHOWN)
    k = np.linspace(low, high, POINTS, axis=1)
    w, _, _ = surface.total_variance(np.repeat(np.arange(count), POINTS), k.ravel())
    iv = np.sqrt(w.reshape(count, POINTS) / surface.tau_years[:, None])
    return k, iv, terms(surface, surface.expiry_ns)


def _quotes(view: View | None, u: int) -> _Quotes:
    if view is None:
        return _Quotes(np.zeros(0, dtype=np.int64), *(np.zeros(0) for _ in range(4)))
    universe, known = view.universe, slice(len(view.iv))  # contracts listed since the decision are behind these
    live = universe.option[known] & (universe.expiry_ns[known] > view.utc_ns) & np.isfinite(view.forward_price)
    rows = np.flatnonzero(live & (universe.underlying[known] == u))
    rows = rows[np.argsort(universe.strike[rows], kind="stable")]
    forward, strike, call = view.forward_price[rows], universe.strike[rows], universe.call[rows]
    unit = np.where(universe.coin_quoted[rows], forward, 1.0)
    unit = np.where(call == (strike >= forward), unit, np.nan)
    tau = (universe.expiry_ns[rows] - view.utc_ns) / YEAR_NS
    with np.errstate(all="ignore"):
        bid, ask = (
            implied_volatility(side[rows] * unit, forward, strike, tau, call)
            for side in (view.bid_price, view.ask_price)
        )
    return _Quotes(universe.expiry_ns[rows], strike, forward, bid, ask)


def _short(column: FloatArray) -> list[float]:
    """Figures enough to draw: the whole is asked for every few seconds."""
    short: list[float] = np.round(column, _DIGITS).tolist()
    return short
