"""What a reload may change: the core's parameters. Loosening a limit is told apart, and needs consent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.parameters import Parameters
from dea_daemon.shell.settings import Settings

# More of these is looser; of the others named here, less is. What is in neither is a matter of taste.
_LOOSER_UP = ("guards.", "state.stale_", "execution.reject_limit", "execution.valid_for_ms", "decide_every_ms")
_LOOSER_DOWN = (
    "execution.skew_margin_ms", "execution.reject_pause_ms", "guards.min_liquidation_distance", "guards.var_annual_vol"
)  # fmt: skip
_LOOSER_ANY = ("state.stable_currencies",)


@dataclass(frozen=True, slots=True)
class Change:
    """One option that differs."""

    option: str
    before: Any
    after: Any
    loosens: bool

    def __str__(self) -> str:
        return f"{self.option}: {_word(self.before)} to {_word(self.after)}{' (looser)' if self.loosens else ''}"


# Compiling takes a minute, in which nothing could be cancelled; sources are polled by what the start read; on another
# grid or with others forecasters would forget all they learned, which a start does with prices recalled.
_AT_START = ("allocator.fast", "factors", "forecast.learners.every_s", "forecast.learners.trees.enabled")


def changes(before: Settings, after: Settings) -> list[Change]:
    """What the core would be told anew. Raises ConfigError where something else differs: that takes a restart."""
    core = set(Parameters.model_fields)
    found = list(_differences("", before, after))
    fixed = [c for c in found if c.option.partition(".")[0] not in core or c.option.startswith(_AT_START)]
    if fixed:
        told = "\n".join(f"  {change}" for change in fixed)
        raise ConfigError(f"these change only with a restart; nothing was applied:\n{told}")
    return found


def _differences(prefix: str, before: Any, after: Any) -> Iterator[Change]:
    then, now = _options(before), _options(after)
    if then is None or now is None or type(before) is not type(after):
        if before != after:
            yield Change(prefix, before, after, _loosens(prefix, before, after))
        return
    for name in {**then, **now}:
        option = f"{prefix}.{name}" if prefix else name
        yield from _differences(option, then.get(name), now.get(name))


def _options(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    return value if isinstance(value, Mapping) else None


def _loosens(option: str, before: Any, after: Any) -> bool:
    """A limit that went is looser, one that came is not."""
    if option.startswith(_LOOSER_ANY):
        return not set(after or ()) <= set(before or ())
    down, up = option.startswith(_LOOSER_DOWN), option.startswith(_LOOSER_UP)
    if not (down or up) or before is None:
        return False
    return bool(after is None or (after < before if down else after > before))


def _word(value: Any) -> str:
    if isinstance(value, BaseModel):
        return str(value.model_dump())
    return "nothing" if value is None else f"{value:,.15g}" if isinstance(value, float) else str(value)
