"""What the daemon may do right now. Guards propose a mode, `fold` applies it."""

from enum import IntEnum


class Mode(IntEnum):
    """From free to bound: where two are proposed the larger wins."""

    NORMAL = 0
    REDUCE_ONLY = 1  # only orders that shrink exposure
    FLATTENING = 2  # the target is zero everywhere, by the operator's word; still reduce-only
    HALTED = 3  # no new orders; cancels and queries still work
