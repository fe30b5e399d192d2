"""pydantic's complaints in plain words, at the places the user wrote.

The JSON Schema is the map: it tells which options exist where (for "did you mean"), and which parts of
pydantic's paths are its own invention (the tags of unions).
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from dea_daemon.shell.yaml_errors import Location, Problem, closest, did_you_mean, dotted

Schema = dict[str, Any]
OPTIONS_SHOWN_MAX = 12


def refuse(message: str, kind: str = "refused") -> PydanticCustomError:
    """An error from a validator, told as it is.

    Kind "forbidden" is a matter of file permissions; "inline_secret" points at the option's name.
    """
    return PydanticCustomError(kind, "{message}", {"message": message})


def problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """One Problem for each thing pydantic found."""
    schemas = Schemas(model)
    return [problem for e in error.errors() for problem in _told(e, schemas)]


class Schemas:
    """The JSON Schema of a model, walked along a path."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.root: Schema = model.model_json_schema()

    def resolved(self, schema: Schema) -> Schema:
        """What a `$ref`, or an optional section, stands for."""
        for option in schema.get("anyOf", [schema]):
            if "$ref" in option:
                found: Schema = self.root["$defs"][option["$ref"].rpartition("/")[2]]
                return found
        return schema

    def walk(self, location: Location) -> tuple[Location, Schema]:
        """The path as the user wrote it, and the schema at its end."""
        path: Location = ()
        schema = self.root
        for part in location:
            schema = self.resolved(schema)
            if "oneOf" in schema:  # `part` is the tag of a union, not in the file
                schema = {"$ref": schema["discriminator"]["mapping"][part]}
                continue
            if part == "[key]":  # the part before it is the key itself
                continue
            path = (*path, part)
            properties = schema.get("properties", {})
            by_name = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
            schema = properties.get(part, by_name or schema.get("items")) or {}
        about = {k: v for k, v in schema.items() if k == "description"}  # the option's, not its type's
        return path, self.resolved(schema) | about

    def names(self, word: object) -> bool:
        """Whether some option, in a section by name or not, is called that."""
        return any(word in section.get("properties", {}) for section in self.root["$defs"].values())

    def options(self, path: Location = ()) -> Iterator[Location]:
        """Every option's path, those of sections by name (targets) excepted."""
        for name in self.walk(path)[1].get("properties", {}):
            yield (*path, name)
            yield from self.options((*path, name))


def _told(error: ErrorDetails, schemas: Schemas) -> Iterator[Problem]:
    location, schema = schemas.walk(error["loc"])
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        yield Problem(location, _unknown(error["loc"], schemas), on_key=True)
    elif kind == "missing":
        about = schema.get("description", "").partition("\n")[0]
        yield Problem(location, f"missing: {about}" if about else "missing", on_key=True)
    elif kind == "union_tag_not_found":
        yield from _untagged(location, schema, given, schemas)
    elif kind == "union_tag_invalid":
        tags = schema["discriminator"]["mapping"]
        guess = did_you_mean(context["tag"], tags)
        yield Problem((*location, _tag(schema)), f"must be {_either(tags)}, not '{context['tag']}'{guess}")
    elif kind == "inline_secret":
        yield Problem(location, error["msg"], on_key=True)
    else:
        yield Problem(
            location,
            _plain(kind, context, given) or error["msg"].removeprefix("Value error, "),
            forbidden=kind == "forbidden",
        )


def _untagged(location: Location, schema: Schema, given: Any, schemas: Schemas) -> Iterator[Problem]:
    """A union without its tag. pydantic looks no further, but the tag may be there, mistyped."""
    yield Problem((*location, _tag(schema)), f"missing: {_either(schema['discriminator']['mapping'])}", on_key=True)
    known = {name for part in schema["oneOf"] for name in schemas.resolved(part)["properties"]}
    for name in given.keys() - known:
        yield Problem((*location, name), f"unknown option{did_you_mean(name, known)}", on_key=True)


def _unknown(location: Location, schemas: Schemas) -> str:
    """An option that is not there: a slip of the pen, or one of another section."""
    _, section = schemas.walk(location[:-1])
    here, wanted = list(section.get("properties", ())), location[-1]
    everywhere = {str(path[-1]): dotted(path) for path in schemas.options()}
    guess = everywhere.get(str(wanted)) or closest(wanted, here)
    if not guess and not schemas.names(wanted):  # an option of another kind of the same thing is no slip of the pen
        guess = everywhere.get(closest(wanted, everywhere) or "")
    if guess:
        hint = f" (did you mean '{guess}'?)"
    else:
        hint = f" (here: {', '.join(here)})" if len(here) <= OPTIONS_SHOWN_MAX else ""
    return f"unknown {'venue' if location[:-1] == ('venues',) else 'option'}{hint}"


_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def _plain(kind: str, context: dict[str, Any], given: object) -> str | None:
    """What must be there, and what is; None where pydantic's own (or our validator's) words do."""
    shown = _shown(given)
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"must be {words} {context[bound]:g}, not {shown}"
    if kind == "literal_error":
        allowed = [part.strip(" '") for part in context["expected"].replace(" or ", ", ").split(", ")]
        return f"must be {_either(allowed)}, not {shown}{did_you_mean(given, allowed)}"
    wanted = {
        "float_type": "a number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "bool_type": "true or false",
        "string_type": "text",
        "path_type": "a path",
        "tuple_type": "a list, such as [a, b]",
        "list_type": "a list, such as [a, b]",
        "dict_type": "a section of options",
        "model_type": "a section of options",
        "model_attributes_type": "a section of options",
        "finite_number": "a finite number",
        "string_pattern_mismatch": f"like {context.get('pattern')}",
    }.get(kind)
    if wanted is None:
        return "the list is empty" if kind == "too_short" else None
    hint = " (write 1000 or 1_000)" if "number" in wanted and isinstance(given, str) and "," in given else ""
    return f"must be {wanted}, not {shown}{hint}"


def _shown(given: object) -> str:
    """A value as YAML would have it; sections and lists only by what they are."""
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, int | float):
        return f"{given:g}" if abs(given) > 1e15 else str(given)
    if isinstance(given, str):
        return f"'{given[:40]}…'" if len(given) > 40 else f"'{given}'"
    return "a list" if isinstance(given, list) else "a section"


def _either(words: Any) -> str:
    """'a', 'b' or 'c'"""
    quoted = [f"'{word}'" for word in words]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


def _tag(schema: Schema) -> str:
    name: str = schema["discriminator"]["propertyName"]
    return name
