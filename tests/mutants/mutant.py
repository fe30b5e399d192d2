"""What one row of the tables is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defence removed. `fault` is its number in docs/reliability.md; `old` stands in `file` exactly once and
    becomes `new`; each of `tests` (pytest's node ids) must then fail by an assertion, or by what it lets through that
    begins with `raises`."""

    fault: int
    removed: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    raises: str = ""
