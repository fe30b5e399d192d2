"""Configuration values given by reference: URLs from the environment, and secrets, which are never written inline."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, ValidationInfo, model_validator

from dea_daemon.domain.parameters import Section
from dea_daemon.shell.pydantic_errors import refuse

Environ = Mapping[str, str]

SECRET_MAX = 1 << 16  # characters
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _environ(info: ValidationInfo) -> Environ:
    found: Environ = (info.context or {}).get("environ", os.environ)
    return found


def _from_environment(value: str, info: ValidationInfo) -> str:
    """`${NAME}` stands for an environment variable, but only as the whole value."""
    if "$" not in value:
        return value
    name = value[2:-1]
    if not (value.startswith("${") and value.endswith("}") and _NAME.fullmatch(name)):
        raise refuse("a reference must be the whole value: ${NAME}")
    if not _environ(info).get(name):
        raise refuse(f"environment variable {name} is not set")
    return _environ(info)[name]


def _url(*schemes: str) -> AfterValidator:
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)

    def is_url(value: str) -> str:
        try:
            url = urlsplit(value)
            plain = url.scheme in schemes and bool(url.hostname) and url.port != 0
        except ValueError:
            raise refuse("not a URL") from None
        if url.username or url.password:
            raise refuse("a key must not be written into a URL")
        if not plain or url.query or url.fragment or any(c.isspace() for c in value):
            raise refuse(f"must be a URL of {wanted}")
        return value.rstrip("/")

    return AfterValidator(is_url)


HttpUrl = Annotated[str, AfterValidator(_from_environment), _url("http", "https")]
WsUrl = Annotated[str, AfterValidator(_from_environment), _url("ws", "wss")]


class Secret(Section):
    """Where a key is found, never the key itself. The first of these that is there counts, in this order."""

    credential: str | None = Field(None, description="a systemd credential, in $CREDENTIALS_DIRECTORY")
    file: Path | None = Field(None, description="a file only its owner may read")
    env: str | None = Field(None, description="name of an environment variable")
    _value: SecretStr = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _refuse_inline(cls, data: object) -> object:
        if not isinstance(data, dict):
            raise refuse(
                "a key is not written here but found: {env: NAME}, {file: PATH} or {credential: NAME}",
                "inline_secret",
            )
        return data

    @model_validator(mode="after")
    def _look_up(self, info: ValidationInfo) -> Self:
        environ = _environ(info)
        if (self.credential, self.file, self.env) == (None, None, None):
            raise refuse("says nowhere to look: give env, file or credential")
        if self.env is not None and not _NAME.fullmatch(self.env):
            raise refuse("env is the name of an environment variable, not its value")
        found = self._credential(environ)
        if not found and self.file:
            found = _contents(self.file, private=True)
        if not found and self.env:
            found = environ.get(self.env, "").strip()
        if not found:
            raise refuse(f"not found: {' nor '.join(self._places(environ))}")
        self._value = SecretStr(found)
        return self

    def _credential(self, environ: Environ) -> str:
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if not (self.credential and directory):
            return ""
        if Path(self.credential).name != self.credential:
            raise refuse("credential is a name, not a path")
        return _contents(Path(directory) / self.credential, private=False)  # systemd sees to who may read it

    def _places(self, environ: Environ) -> Iterator[str]:
        if self.credential:
            directory = environ.get("CREDENTIALS_DIRECTORY", "(CREDENTIALS_DIRECTORY is not set)")
            yield f"credential {self.credential} in {directory}"
        if self.file:
            yield f"file {self.file}"
        if self.env:
            yield f"environment variable {self.env}"

    def reveal(self) -> str:
        """The key itself: hand it to the venue's client and nowhere else."""
        return self._value.get_secret_value()


def _contents(path: Path, private: bool) -> str:
    """A small file's text, "" if it is not there. `private`: refused if anyone but its owner may read it."""
    try:
        with path.open(encoding="utf-8") as file:
            if private and os.fstat(file.fileno()).st_mode & 0o077:
                raise refuse(f"others may read {path} (chmod 600)", "forbidden")
            return file.read(SECRET_MAX).strip()
    except FileNotFoundError:
        return ""
    except PermissionError:
        raise refuse(f"may not read {path}", "forbidden") from None
    except (OSError, UnicodeDecodeError):
        raise refuse(f"cannot read {path}") from None
