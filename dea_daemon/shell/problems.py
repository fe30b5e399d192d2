"""Problems of the allocator as files: numpy's npz, one array a field of `Problem`. Nothing pickled is ever read.

May be left out: G, g_lower, g_upper (no rows); row_price (all rows hard); gross and gross_limit (no such limit), or
gross alone, where gross_limit is one number: of Σ|x|.
"""

import io
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from dea_daemon.allocator.problem import Problem
from dea_daemon.allocator.solver import solve
from dea_daemon.domain.errors import DataError, DeaError
from dea_daemon.domain.instruments import FloatArray

SHAPES = dict.fromkeys(("mu", "d", "cost", "x0", "lower", "upper"), "n") | {
    "B": "nk",
    "omega": "kk",
    "G": "mn",
    "g_lower": "m",
    "g_upper": "m",
    "row_price": "m",
    "gross": "qn",
    "gross_limit": "q",
}
ROWS, GROSS = ("G", "g_lower", "g_upper"), ("gross", "gross_limit")
MAY_BE_INFINITE = {"lower", "upper", "g_lower", "g_upper", "row_price", "gross_limit"}
NOT_NPZ = (ValueError, EOFError, UnpicklingError, zipfile.BadZipFile)
Arrays = dict[str, FloatArray]


def save(path: Path, problem: Problem) -> None:
    """Write `problem` to exactly this path. Raises OSError."""
    path.write_bytes(packed(problem))


def packed(problem: Problem) -> bytes:
    """The bytes of its file."""
    file = io.BytesIO()
    np.savez(file, **{field.name: getattr(problem, field.name) for field in fields(Problem)})
    return file.getvalue()


def load(path: Path) -> Problem:
    """Read what `save` wrote, or any file like it; arrays that no problem has are passed over.

    Raises DataError, naming file and array; OSError where there is nothing to read.
    """
    return _problem(path, _read(path))


def answer(path: Path) -> dict[str, Any]:
    """The cheapest book for the problem in a file, as `dea-daemon allocate` tells it; `unknown` are the arrays passed
    over, since a misspelt limit is none. Raises as `load`, and DataError where the solver refuses the problem."""
    arrays = _read(path)
    try:
        found = solve(_problem(path, arrays))
    except DataError:
        raise
    except DeaError as error:
        raise DataError(f"{path}: {error}") from error
    return {
        "file": str(path),
        "status": found.status,
        "objective": found.objective,
        "gap": found.gap,
        "max_violation": found.violation,
        "iterations": found.iterations,
        "x": found.x.tolist(),
        "widened": list(found.widened),
        "unknown": sorted(set(arrays) - set(SHAPES)),
    }


def _read(path: Path) -> Arrays:
    """Every array, whatever its name or shape, as float64."""
    with path.open("rb") as file:  # closed whatever numpy makes of it
        try:
            loaded = np.load(file, allow_pickle=False)
        except NOT_NPZ as error:
            raise DataError(f"{path}: not an npz file") from error
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: a single array, not an npz file")
        with loaded:
            return {name: _real(path, name, loaded) for name in loaded.files}


def _real(path: Path, name: str, loaded: Any) -> FloatArray:
    try:
        array = np.asarray(loaded[name])
    except (*NOT_NPZ, zlib.error) as error:
        raise _wrong(path, name, f"cannot be read: {error}") from error
    if array.dtype.kind not in "fiu":
        raise _wrong(path, name, f"holds {array.dtype}, not real numbers")
    return np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)


def _problem(path: Path, arrays: Arrays) -> Problem:
    found = _completed({name: array for name, array in arrays.items() if name in SHAPES})
    missing = [name for name in SHAPES if name not in found]
    if missing:
        raise _wrong(path, missing[0], "is missing")
    sizes: dict[str, int] = {}
    for name in ("mu", "B", "G", "gross", *SHAPES):  # the first few tell how many there are of what
        array, letters = found[name], SHAPES[name]
        wanted = ", ".join(letters)
        if array.ndim != len(letters):
            raise _wrong(path, name, f"has the shape {array.shape}, not [{wanted}]")
        fits = [sizes.setdefault(letter, size) == size for letter, size in zip(letters, array.shape, strict=True)]
        if not all(fits):
            told = ", ".join(str(sizes[letter]) for letter in letters)
            raise _wrong(path, name, f"has the shape {array.shape}, not [{wanted}] = ({told})")
        if np.isnan(array).any() or (name not in MAY_BE_INFINITE and not np.isfinite(array).all()):
            raise _wrong(path, name, f"holds {'NaN' if np.isnan(array).any() else 'an infinite number'}")
    return Problem(**found)


def _completed(found: Arrays) -> Arrays:
    """With what may be left out."""
    n = found["mu"].size if "mu" in found else 0
    found |= {name: np.zeros((0, n)) for name in ("G", "gross") if name in found and found[name].shape[:1] == (0,)}
    if not any(name in found for name in ROWS):
        found |= {"G": np.zeros((0, n)), "g_lower": np.zeros(0), "g_upper": np.zeros(0)}
    if "row_price" not in found and "g_lower" in found:
        found["row_price"] = np.full(found["g_lower"].shape, np.inf)
    if not any(name in found for name in GROSS):
        found |= {"gross": np.zeros((0, n)), "gross_limit": np.zeros(0)}
    if "gross_limit" in found and found["gross_limit"].size == 1:
        found["gross_limit"] = found["gross_limit"].reshape(1)
        found.setdefault("gross", np.ones((1, n)))
    return found


def _wrong(path: Path, name: str, what: str) -> DataError:
    return DataError(f"{path}: {name} {what}")
