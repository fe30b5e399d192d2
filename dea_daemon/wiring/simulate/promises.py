"""What a history is judged by: a promise is kept, or the history ends there."""

from dea_daemon.domain.errors import DeaError


class PromiseBroken(DeaError):
    """What must hold at every step does not."""


def promise(kept: object, why: str) -> None:
    """Raise PromiseBroken unless it is kept. NaN keeps nothing."""
    if not kept:
        raise PromiseBroken(why)
