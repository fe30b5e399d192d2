"""What passes between the core and those who fit a model aside: lessons out, trees back. And who may trade."""

import msgspec


class Lessons(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was asked and what came, oldest first, whose outcome was known when this was sent.

    x [n, k] and y [n], little-endian float32, row by row: regressors, and the return in standard deviations of the
    horizon as forecast then. `known_days` [n] is when each outcome was known, in days since 1970, little-endian
    float32; each spans `horizon_days`.
    """

    horizon_days: float
    k: int
    x: bytes
    y: bytes
    known_days: bytes


class Trees(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Boosted trees of depth 3, each complete: their sum says a return in standard deviations of the horizon.

    Of tree t, inner node i (0 the root; the children of i are 2 i + 1 and 2 i + 2) has feature[7 t + i] and
    threshold[7 t + i]: left where x <= threshold. leaf[8 t + j] is what its j-th leaf from the left adds. None: it
    says 0.
    """

    feature: tuple[int, ...] = ()
    threshold: tuple[float, ...] = ()
    leaf: tuple[float, ...] = ()


class Standing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was ruled of a forecaster after the configuration was written; it holds until it is ruled otherwise.

    `name` is a forecaster of returns ("ridge_1d"), whose weight this is instead of the configured one, or a model of
    variance ("har", "harq", "ewma"; "cautious": the larger of the configured one's and a slow one's), which trades.
    """

    name: str
    weight: float
    who: str
    why: str
    utc_ns: int
