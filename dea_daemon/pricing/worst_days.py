"""History's worst days: what BTC, ETH and the others did together within 24 hours.

Source: hourly closes of Binance spot, 2018 to 2023: the largest falls and rises of either, and the two days on which
they parted most. An other's move is the widest of SOL, XRP, LTC and ADA where they were listed, of ETH else.
"""

import numpy as np

from dea_daemon.domain.instruments import FloatArray

DAYS: tuple[tuple[str, float, float, float], ...] = (
    ("2018-01-05", +0.137, -0.042, +0.025),
    ("2018-01-16", -0.272, -0.315, -0.313),
    ("2018-01-18", +0.274, +0.382, +0.409),
    ("2019-10-25", +0.348, +0.207, +0.244),
    ("2020-03-12", -0.465, -0.478, -0.463),
    ("2020-03-13", +0.327, +0.377, +0.465),
    ("2021-01-03", -0.026, +0.381, +0.292),
    ("2021-05-19", -0.198, -0.308, -0.412),
)


def moves(underlyings: tuple[str, ...]) -> FloatArray:
    """[D, U] as fractions."""
    column = {"BTC": 1, "ETH": 2}
    return np.array([[day[column.get(u, 3)] for u in underlyings] for day in DAYS], dtype=np.float64)
