"""Errors of the house. Gaps, staleness and limit breaches are values, never exceptions."""


class DeaError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(DeaError):
    """Refuse to start; says file:line:column and what was meant."""


class DataError(DeaError):
    """A tape, capture or history that cannot be used; says where it ends to make sense."""


class VenueError(DeaError):
    """A venue call did not do what was asked."""


class Rejected(VenueError):
    """The venue said no: certainly not live."""


class RateLimited(VenueError):
    """Refused for now: certainly not live, try later."""


class OutcomeUnknown(VenueError):
    """May be live: ask by client_order_id."""


class ProblemError(DeaError):
    """The allocator's problem makes no sense (NaN, contradictory bounds, no lower end): hold what is held."""


class LedgerError(DeaError):
    """Cannot record, so cannot add risk."""


class InvariantViolation(DeaError):
    """Our own accounts contradict each other: cancel all, exit 70."""


def check(condition: bool, why: str) -> None:
    """Raise InvariantViolation unless `condition` holds. Unlike `assert`, it stays on in production."""
    if not condition:
        raise InvariantViolation(why)
