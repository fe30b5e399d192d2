"""A YAML file as plain data that remembers where each part of it stands, and errors that show the place:

    config.yaml:5:5: error: venues.deribit.max_levrage: unknown option (did you mean 'max_leverage'?)
        max_levrage: 3
        ^

Scalars follow YAML 1.2 (`1e6` is a number; `yes`, `1:30` and dates are text) and keys may not repeat. Anchors
and merge keys work.
"""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dea_daemon.domain.errors import ConfigError

BYTES_MAX = 1 << 18  # a configuration of 256 KiB is a mistake, and the parser is slow
NODES_MAX = 20_000  # aliases of aliases multiply
SHOWN_MAX = 160  # characters of a line worth showing

Location = tuple[str | int, ...]


class ConfigMissing(ConfigError):
    """There is no such file."""


class ConfigForbidden(ConfigError):
    """Others may write the configuration, or read a secret, or we may not read it."""


class Place(NamedTuple):
    """Line and column, from 0."""

    line: int
    column: int


class Problem(NamedTuple):
    """One thing wrong with one part of the file. `on_key` points at the option's name, not its value."""

    location: Location
    message: str
    on_key: bool = False
    forbidden: bool = False


@dataclass
class Source:
    """A parsed file: `data` in plain Python types, `empty` the options left without a value."""

    name: str
    text: str
    data: Any = None
    keys: dict[Location, Place] = field(default_factory=dict)
    values: dict[Location, Place] = field(default_factory=dict)
    empty: list[Location] = field(default_factory=list)

    def place(self, problem: Problem) -> Place:
        """Where the problem is, or the nearest part around it that the file has."""
        location = problem.location
        if not problem.on_key and location in self.values:
            return self.values[location]
        for end in range(len(location), 0, -1):
            found = self.keys.get(location[:end]) or self.values.get(location[:end])
            if found:
                return found
        return Place(0, 0)

    def refusal(self, problems: list[Problem]) -> ConfigError:
        """One error that tells them all, in the order of the file."""
        told = sorted(
            (self.place(p), f"{dotted(p.location)}: {p.message}", p.on_key and self.is_text(p.location))
            for p in set(problems)
        )
        text = "\n".join(self.line(*one) for one in told)
        return ConfigForbidden(text) if any(p.forbidden for p in problems) else ConfigError(text)

    def is_text(self, location: Location) -> bool:
        """Whether the file has text there."""
        data = self.data
        for part in location:
            data = data.get(part) if isinstance(data, dict) else None
        return isinstance(data, str)

    def line(self, place: Place, message: str, key_only: bool = False) -> str:
        """The message with file:line:column, the line itself and a caret. Secrets are masked.

        `key_only` hides whatever stands behind the option's name: a mistyped `client_secret` is a secret too.
        """
        first = f"{self.name}:{place.line + 1}:{place.column + 1}: error: {message}"
        line = [*self.text.split("\n"), ""][place.line]
        if key_only:
            name_end = line.find(":", place.column) + 1 or len(line)
            line = line[:name_end] + (" …" if line[name_end:].strip() else "")
        shown = _masked(line)
        if not shown.strip():
            return first
        skipped = max(0, place.column - SHOWN_MAX // 2)
        shown = shown[skipped : skipped + SHOWN_MAX].rstrip()
        return f"{first}\n    {shown}\n    {' ' * (place.column - skipped)}^"


_SECRET_VALUE = re.compile(
    r"((?:secr|token|passw|key)\w*[\"']?\s*:\s*)(?![{#&*|>$\s]).+|(://)[^/\s]*(?=@)", re.IGNORECASE
)


def _masked(line: str) -> str:
    """The line with what follows a secret's name, or `https://`, hidden, and nothing a terminal would obey."""
    line = _SECRET_VALUE.sub(lambda found: f"{found[1] or found[2]}********", line)
    return "".join(c if c.isprintable() else " " for c in line)


def dotted(location: Location) -> str:
    """("venues", "deribit", "instruments", 0) → "venues.deribit.instruments[0]"."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def closest(word: object, known: Iterable[str]) -> str | None:
    """The known word that `word` is probably a slip of, whatever its case."""
    lower = {k.lower(): k for k in known}
    close = get_close_matches(str(word).lower(), list(lower), n=1, cutoff=0.6)
    return lower[close[0]] if close else None


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The words to append to a message: nothing where no known word is close."""
    guess = closest(word, known)
    return f" (did you mean '{guess}'?)" if guess else ""


# --- reading ----------------------------------------------------------------------------------------------


def read(path: Path) -> Source:
    """Parse a configuration file. Raises ConfigMissing, ConfigForbidden, or ConfigError with the place."""
    name = str(path)
    source = Source(name, _decoded(name, _contents(path)))
    try:
        loader = _Loader(source.text)
        try:
            root = loader.get_single_node()
            _Builder(source, loader).build(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax(source, error)) from None
    except yaml.reader.ReaderError as error:
        before = source.text[: error.position]
        place = Place(before.count("\n"), len(before) - before.rfind("\n") - 1)
        raise ConfigError(source.line(place, f"U+{error.character:04X} is not allowed here")) from None
    except RecursionError:
        raise ConfigError(f"{name}: error: nested too deeply") from None
    return source


def _contents(path: Path) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a fifo must not hang us
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ConfigMissing(f"{path}: error: not a file")
            if about.st_mode & stat.S_IWOTH:
                raise ConfigForbidden(f"{path}: error: anyone may write this file (chmod o-w)")
            contents = file.read(BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigMissing(f"{path}: error: no such file") from None
    except IsADirectoryError:
        raise ConfigMissing(f"{path}: error: not a file") from None
    except PermissionError:
        raise ConfigForbidden(f"{path}: error: may not be read") from None
    except (OSError, ValueError) as error:
        raise ConfigMissing(f"{path}: error: cannot be read: {error}") from None
    if len(contents) > BYTES_MAX:
        raise ConfigError(f"{path}: error: larger than {BYTES_MAX // 1024} KiB")
    return contents


def _decoded(name: str, contents: bytes) -> str:
    try:
        text = contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = contents[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        byte = contents[error.start]
        raise ConfigError(f"{name}:{line}:{column}: error: not UTF-8 (byte 0x{byte:02x})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _syntax(source: Source, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line, mark.column) if mark else Place(0, 0)
    why = "; ".join(part for part in (error.context, error.problem) if part)
    line = [*source.text.split("\n"), ""][place.line]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        why = "tabs cannot indent YAML: use spaces"
    return source.line(place, f"not YAML: {why}")


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 PyYAML's own shape


_TAG = "tag:yaml.org,2002:"
_DIGITS = r"(?:0|[1-9][0-9_]*)"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", rf"[-+]?{_DIGITS}", list("-+0123456789")),
    (
        "float",
        rf"[-+]?(?:(?:{_DIGITS}\.[0-9_]*|\.[0-9][0-9_]*|{_DIGITS}(?=[eE]))(?:[eE][-+]?[0-9]+)?|(?i:\.inf|\.nan))",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(rf"^(?:{_pattern})$"), _first)


def _number(text: str) -> int | float:
    """`1e6` is the whole number it looks like."""
    plain = text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")
    try:
        return int(plain)
    except ValueError:
        number = float(plain)
        return int(number) if "." not in plain and number.is_integer() and abs(number) < 2**53 else number


class _Builder:
    """Nodes become data and places."""

    def __init__(self, source: Source, loader: _Loader) -> None:
        self.source = source
        self.loader = loader
        self.nodes = 0
        self.flattened: set[yaml.Node] = set()

    def build(self, root: yaml.Node | None) -> None:
        if root is None:
            raise ConfigError(f"{self.source.name}: error: the file is empty")
        if not isinstance(root, yaml.MappingNode):
            raise self.error(root, "the file must be a mapping of options, such as `armed: false`")
        self.source.data = self.value(root, ())

    def error(self, node: yaml.Node, why: str) -> ConfigError:
        return ConfigError(self.source.line(Place(node.start_mark.line, node.start_mark.column), why))

    def value(self, node: yaml.Node, location: Location) -> Any:
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise self.error(node, "too many values; do aliases multiply here?")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, location)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            if location not in self.source.keys:
                self.source.values[location] = _start(node)
            return [self.value(item, (*location, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, location)
        raise self.error(node, f"the tag {node.tag} means nothing here")

    def mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        if location not in self.source.keys:
            self.source.values[location] = _start(node)
        if node not in self.flattened:  # an alias brings the same node again
            self.check_keys(node, location)
            self.loader.flatten_mapping(node)
            self.flattened.add(node)
        data = {}
        last = {key.value: (key, value) for key, value in node.value}  # own options come after merged ones
        for key, value in last.values():
            here = (*location, key.value)
            self.source.keys[here] = _start(key)
            data[key.value] = self.value(value, here)
        return data

    def check_keys(self, node: yaml.MappingNode, location: Location) -> None:
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(key, "a key must be plain text")
            first = seen.setdefault(key.value, key)
            if first is not key:
                path = dotted((*location, key.value))
                raise self.error(key, f"{path}: given twice, first on line {first.start_mark.line + 1}")

    def scalar(self, node: yaml.ScalarNode, location: Location) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind == "null":
            self.source.empty.append(location)
            return None
        self.source.values[location] = _start(node)
        try:
            if kind == "bool":
                return {"true": True, "false": False}[node.value.lower()]
            if kind in ("int", "float"):
                return _number(node.value)
        except (ValueError, KeyError):
            raise self.error(node, f"{node.value!r} is not {kind}") from None
        if kind != "str":
            raise self.error(node, f"the tag {node.tag} means nothing here")
        return node.value


def _start(node: yaml.Node) -> Place:
    return Place(node.start_mark.line, node.start_mark.column)
