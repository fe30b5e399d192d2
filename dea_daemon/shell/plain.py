"""numpy's scalars as Python's own, for msgspec encoders: a stray np.float64 must not stop a record."""

from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """An `enc_hook`. Raises TypeError for anything but a numpy scalar."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot be recorded: {type(value).__name__}")
