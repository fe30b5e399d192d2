"""Quotes that their own neighbours contradict: one displaced quote must not bend the smile for all the others."""

import numpy as np

from dea_daemon.domain.instruments import BoolArray, FloatArray
from dea_daemon.pricing.surface.quotes import Quotes

FAR = 2.5  # errors of the three involved; recorded chains hold none so far off, 2 would begin to take sound ones
BOW = 0.03  # of the volatility: so much a smile may bend within one standard deviation, and as its square


def contradicted(q: Quotes) -> BoolArray:
    """[Q] those to leave out: further than `FAR` from the line through the quotes on either side.

    The worst first and one at a time, as a bad one makes its neighbours look bad, too. How much a smile bends between
    strikes is allowed for; the first and the last have nobody to contradict them.
    """
    root = np.sqrt(q.tau_years)
    out = np.zeros(len(q.k), dtype=np.bool_)
    while True:
        left = np.flatnonzero(~out)
        if len(left) < 3:
            return out
        off = _off(q.k[left], q.iv[left], q.error[left], root)
        worst = int(off.argmax())
        if not off[worst] > FAR:
            return out
        out[left[worst + 1]] = True


def _off(k: FloatArray, iv: FloatArray, error: FloatArray, root: float) -> FloatArray:
    """Distance [Q - 2] of all but the ends from the line beside them, in errors."""
    gap = np.maximum(k[2:] - k[:-2], 1e-12)
    right = (k[1:-1] - k[:-2]) / gap
    between = (1.0 - right) * iv[:-2] + right * iv[2:]
    bow = BOW * between * (gap / (between * root)) ** 2
    spread = error[1:-1] ** 2 + ((1.0 - right) * error[:-2]) ** 2 + (right * error[2:]) ** 2 + bow**2
    return np.asarray(np.abs(iv[1:-1] - between) / np.sqrt(spread))
