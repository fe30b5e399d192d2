"""What traders call a smile: volatility at the money, risk reversal and butterfly of 25 delta."""

import numpy as np
from scipy.special import ndtri

from dea_daemon.domain.instruments import FloatArray, IntArray
from dea_daemon.domain.numbers import NS_PER_DAY
from dea_daemon.domain.surfaces import TENOR_DAYS, Tenor
from dea_daemon.pricing.surface.surface import YEAR_NS, Surface

DELTA = 0.25  # Black's, of the forward, undiscounted
ROUNDS = 12  # strike from delta from volatility from strike: settles by more than half each time


def terms(surface: Surface, expiry_ns: IntArray) -> FloatArray:
    """[T, 3]: σ at k = 0; σ of the call less that of the put of 25 delta; their mean less σ at k = 0."""
    tau = (expiry_ns - surface.utc_ns) / YEAR_NS
    atm = surface.look_up(expiry_ns, np.zeros(len(tau))).iv
    twice, side = np.tile(expiry_ns, 2), np.repeat((1.0, -1.0), len(tau))
    call, put = _at_delta(surface, twice, np.tile(tau, 2), np.tile(atm, 2), side).reshape(2, -1)
    return np.stack((atm, call - put, 0.5 * (call + put) - atm), axis=-1)


def smile_terms(surface: Surface, smile: int) -> tuple[float, float, float]:
    """(at the money, risk reversal, butterfly) of one expiry."""
    atm, reversal, butterfly = terms(surface, surface.expiry_ns[smile : smile + 1])[0].tolist()
    return atm, reversal, butterfly


def tenors(surface: Surface) -> tuple[Tenor, ...]:
    """At the constant maturities; NaN for those before the first expiry or behind the last."""
    at = surface.utc_ns + (np.array(TENOR_DAYS) * NS_PER_DAY).astype(np.int64)
    values = terms(surface, at)
    values[(at < surface.expiry_ns[0]) | (at > surface.expiry_ns[-1])] = np.nan
    return tuple(Tenor(days, *row) for days, row in zip(TENOR_DAYS, values.tolist(), strict=True))


def _at_delta(surface: Surface, expiry_ns: IntArray, tau: FloatArray, iv: FloatArray, side: FloatArray) -> FloatArray:
    """σ [M] where N(d1) is 25 % (side 1: the call) or 75 % (-1: the put): k = s²/2 + side·z·s, z = 0.67."""
    z = -side * ndtri(DELTA)
    for _ in range(ROUNDS):
        sd = iv * np.sqrt(tau)
        iv = 0.5 * (iv + surface.look_up(expiry_ns, sd * (0.5 * sd + z)).iv)
    return iv
