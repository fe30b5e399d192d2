"""What `dea-daemon calibrate` found, as a YAML file that knows its own hash, and `calibration: FILE` that takes it.

The hash is no signature: it tells a file that was changed by hand, or cut short, from one that a calibration wrote.
Only what a calibration tries may be in it: six options of the risk model, two of the forecasters, bands of targets, and
what trading is thought to cost, which it may only raise. No limit, no view, no weight.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dea_daemon.domain.errors import ConfigError
from dea_daemon.shell.yaml_errors import read

HASH, PARAMETERS = "content_sha256", "parameters"
HEAD = "# Written by `dea-daemon calibrate`. Changed by hand it is refused: calibrate again.\n"
COST = "forecast.learners.trial.cost_bp"
_MAY_SET = re.compile(
    r"forecast\.(model|half_life_s|jump_clip|vol_floor|prior_annual_vol|correlation_half_life_s"
    r"|learners\.(half_life_days|prior_sharpe|trial\.cost_bp))|allocator\.targets\.[^.]+\.band"
)  # and nothing else: see above


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of everything but the hash itself, whatever the order of its keys."""
    rest = {name: part for name, part in content.items() if name != HASH}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write(path: Path, content: Mapping[str, Any]) -> None:
    """With its hash, whole or not at all. Raises OSError."""
    plain = json.loads(json.dumps(content, allow_nan=False))
    text = yaml.safe_dump({**plain, HASH: digest(plain)}, sort_keys=False, allow_unicode=True, width=100)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(HEAD + text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def parameters(path: Path) -> dict[str, Any]:
    """What the file sets, nested as in a configuration. Raises ConfigError where it is not whole, or sets what it may
    not; ConfigMissing, ConfigForbidden as a configuration does."""
    content = read(path).data
    if not isinstance(content, dict) or not isinstance(content.get(PARAMETERS), dict):
        raise ConfigError(f"{path}: no calibration: `dea-daemon calibrate` writes them")
    try:
        whole = content.get(HASH) == digest(content)
    except ValueError:  # NaN, which no calibration writes
        whole = False
    if not whole:
        raise ConfigError(f"{path}: not as `dea-daemon calibrate` wrote it ({HASH} differs): calibrate again")
    found: dict[str, Any] = content[PARAMETERS]
    if wrong := [option for option, _ in leaves(found) if not may_set(option)]:
        raise ConfigError(
            f"{path}: a calibration may not set {', '.join(wrong)}: only the risk model, forecasters' memory and "
            "prior, bands, and the cost of a trial"
        )
    return found


def may_set(option: str) -> bool:
    """Whether a calibration may set it: "forecast.half_life_s"."""
    return _MAY_SET.fullmatch(option) is not None


def leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("forecast.half_life_s", 3600.0), … An empty part is a leaf."""
    for name, value in nested.items():
        option = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{option}.")
        else:
            yield option, value


def laid_over(below: Any, above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `above` says, to any depth."""
    told = dict(below) if isinstance(below, Mapping) else {}
    for name, value in above.items():
        told[name] = laid_over(told.get(name), value) if isinstance(value, Mapping) else value
    return told


def changes(set_to: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[str, ...]:
    """What it changes of `before`, a whole configuration: a line an option. ConfigError where trading would be thought
    to cost less than there: that would let a challenger win more easily."""
    was, cost = dict(leaves(before)), dict(leaves(set_to)).get(COST)
    if cost is not None and not cost >= was[COST]:
        raise ConfigError(
            f"{COST}: a calibration may not lower it ({_word(was[COST])} configured, {_word(cost)} found)"
        )
    return tuple(
        f"{option}: {_word(value)} instead of {_word(was.get(option))}"
        for option, value in leaves(set_to)
        if was.get(option) != value
    )


def _word(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:,.15g}" if number else "nothing" if value is None else str(value)
