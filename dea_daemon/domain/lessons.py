"""What one measured order teaches about costs: told by execution, kept by the ledger, told again at a start."""

import msgspec


class CostLesson(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`account`, `underlying` and `kind` say what trades alike; `placed` is post or cross. `beyond_usd` is what the
    order cost beyond fee and half spread (a posted one: beyond having crossed at once), `day_vol_bp` a day's volatility
    when it was measured. NaN where not known: that teaches nothing."""

    ended_ns: int
    account: str
    underlying: str
    kind: str
    placed: str
    asked_usd: float
    filled_usd: float
    beyond_usd: float
    day_vol_bp: float
