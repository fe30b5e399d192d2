"""What the daemon may do right now. Guards propose a mode, `fold` applies it."""

from enum import IntEnum


class Mode(IntEnum):
    """What may be sent. The numbers are on disk."""

    NORMAL = 0
    REDUCE_ONLY = 1  # only orders that shrink exposure
    FLATTENING = 2  # the target is zero everywhere, by the operator's word; still reduce-only
    HALTED = 3  # no new orders; cancels and queries still work
    PAUSED = 4  # likewise, for a while: the mode before comes back with the operator's word
