"""A core that follows options on two underlyings, quoted about surfaces that are known, and is answered with them."""

import math
from typing import Any

import numpy as np

from dea_daemon.domain.commands import FitSurface
from dea_daemon.domain.events import InstrumentsListed, MarkUpdated, QuoteUpdated, SurfaceFitted
from dea_daemon.domain.instruments import Instrument, Kind, Payoff
from dea_daemon.domain.surfaces import Quality, Rung, Smile
from dea_daemon.pricing import black
from dea_daemon.pricing.surface.lattice import lattice
from dea_daemon.pricing.surface.surface import YEAR_NS, Surface
from dea_daemon.pricing.surface.tenors import tenors
from tests.house import INSTRUMENTS, START_NS, Run, S, instrument, parameters
from tests.pricing.known_surfaces import Ssvi

DAY = 86_400 * S
KNOWN = {"BTC": Ssvi(), "ETH": Ssvi(now=0.70, later=0.62, rho=-0.1)}
DAYS = (3, 10, 40, 100)
HALF = 0.01  # of volatility, each side of the truth
SCALE = 2.0**-4.5
QUALITY = Quality(
    quotes=52, dropped=1, inside=0.981, rmse_vol_pts=0.2, spread_ratio=0.3, min_g=0.4, fallback_slices=1, fit_ms=31.0
)


def expiry_ns(days: int) -> int:
    return START_NS + days * DAY


def chain(underlying: str, spot: float) -> list[Instrument]:
    """13 strikes of each expiry, 2 standard deviations to either side, a call and a put of each."""
    contracts = []
    for days in DAYS:
        tau = days / 365
        sd = float(KNOWN[underlying].iv(np.zeros(1), tau)[0]) * math.sqrt(tau)
        for strike in np.round(spot * np.exp(np.linspace(-2.0, 2.0, 13) * sd), -2 if spot > 1e4 else 0).tolist():
            contracts += [_option(underlying, days, strike, call) for call in (True, False)]
    return contracts


def _option(underlying: str, days: int, strike: float, call: bool) -> Instrument:
    return instrument(
        f"{underlying}-{days}D-{strike:.0f}-{'C' if call else 'P'}", underlying, Payoff.LINEAR, "0.1", "0.0001",
        kind=Kind.OPTION, quote_currency=underlying, settle_currency=underlying, margin_pool=underlying,
        expiry_ns=expiry_ns(days), strike=strike, is_call=call,
    )  # fmt: skip


class SurfaceDesk(Run):
    """Quotes are within a volatility point of the truth."""

    def __init__(self, underlyings: tuple[str, ...] = ("BTC", "ETH"), **sections: Any) -> None:
        super().__init__(parameters(**sections))
        self.chains = [c for name in underlyings for c in chain(name, self.prices[name])]
        self.feed(InstrumentsListed(self.now_ns, 0, tuple(self.chains)))
        self.unquoted: set[str] = set()

    def quote(self, spread: float = 2.0, amount: float = 1e6) -> None:
        super().quote(spread, amount)
        for row, contract in enumerate(self.chains if hasattr(self, "chains") else (), len(INSTRUMENTS)):
            if contract.name in self.unquoted:
                continue
            forward, tau = self.prices[contract.underlying], (contract.expiry_ns - self.now_ns) / YEAR_NS
            iv = float(KNOWN[contract.underlying].iv(np.log([contract.strike / forward]), tau)[0])
            bid, mark, ask = (
                float(black.price(forward, contract.strike, tau, level, contract.is_call)) / forward
                for level in (iv - HALF, iv, iv + HALF)
            )
            now = self.now_ns
            self.feed(MarkUpdated(now, now, row, mark, forward), QuoteUpdated(now, now, row, bid, 9.0, ask, 9.0))

    def answer(self, **more: Any) -> list[str]:
        """Answer every surface asked for in the last decision with the truth; whose they were."""
        asked = [c for c in self.decisions[-1].commands if isinstance(c, FitSurface)]
        for command in asked:
            self.feed(truth(self.now_ns, command.chain.underlying, command.chain.utc_ns, self.prices, **more))
        return [command.chain.underlying for command in asked]


def truth(now_ns: int, underlying: str, utc_ns: int, prices: dict[str, float], **more: Any) -> SurfaceFitted:
    k = lattice(SCALE).k
    smiles = tuple(
        Smile(
            expiry_ns(days), prices[underlying], tuple((KNOWN[underlying].iv(k, tau) ** 2 * tau).tolist()),
            Rung.FITTED if days > 3 else Rung.LEANING, -0.1, 0.1, 13, int(days == 3), 12,
        )
        for days in DAYS
        for tau in ((expiry_ns(days) - utc_ns) / YEAR_NS,)
    )  # fmt: skip
    surface = Surface(utc_ns, SCALE, smiles)
    fields: dict[str, Any] = dict(scale=SCALE, smiles=smiles, tenors=tenors(surface), quality=QUALITY)
    return SurfaceFitted(now_ns, underlying, utc_ns, **(fields | more))
