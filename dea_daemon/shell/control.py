"""The control socket: the operator's commands and questions to a running daemon, HTTP on a UNIX socket.

Who may open the socket may command: mode 0660, so its user and group. Each command that acts is logged with the
peer's user id as the kernel tells it. Questions change nothing; an answer is built in a millisecond, and a client
that reads slowly fills its own socket only. `control_client` is the other end.
"""

import asyncio
import os
import socket
import stat
import struct
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
from aiohttp import web

from dea_daemon.domain.errors import ConfigError
from dea_daemon.domain.events import Operator
from dea_daemon.shell.control_client import short_address

BODY_MAX = 4_096  # bytes of a request
WHY_MAX = 500  # characters
_ANSWER_S = 1.0  # how long the end of the run waits for requests under way
_UMASK = 0o117

# What makes the daemon do less is never too late. Anything else is refused when nobody waits for it any more:
# a daemon that hung for an hour must not arm on waking.
_NEVER_LATE = frozenset({Operator.DISARM, Operator.PAUSE, Operator.REDUCE_ONLY, Operator.HALT})
_COMMANDS = {command.value: command for command in Operator if command is not Operator.DRAIN}  # DRAIN: SIGTERM

log = structlog.get_logger()
_json = msgspec.json.Encoder(enc_hook=str).encode  # NaN becomes null

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Watched(Protocol):
    """What is asked of the monitor (`shell.monitor`)."""

    def status(self) -> dict[str, Any]: ...
    def exposure(self) -> dict[str, Any] | None: ...
    def surface(self) -> dict[str, Any]: ...
    def points(self, after: int) -> list[dict[str, Any]]: ...
    def decisions(self, after: int) -> list[dict[str, Any]]: ...
    def decision(self, seq: int | None) -> dict[str, Any] | None: ...
    def problem(self) -> dict[str, Any] | None: ...
    def fills(self, after: int) -> list[dict[str, Any]]: ...


class Actions(Protocol):
    """What the operator may have done."""

    def operator(self, command: Operator, who: str, why: str) -> None:
        """Folded before it returns."""

    async def reload(self, who: str, *, dry_run: bool, allow_loosen: bool) -> dict[str, Any]:
        """{"changed": [{"option", "before", "after", "loosens"}], "applied"}. Raises ConfigError: nothing changed."""

    def heard(self) -> bool:
        """Whether any target takes what forecasters of returns say."""

    async def rule(self, name: str, weight: float | None, who: str, why: str) -> str:
        """A forecaster's weight from now on (None: as configured), folded. Why that was refused, or ""."""


class ControlServer:
    """Serves while it is entered. Entering raises ConfigError where the socket cannot be had."""

    def __init__(self, path: Path, monitor: Watched, actions: Actions) -> None:
        self.path = path
        self._monitor, self._actions = monitor, actions
        self._reloading = asyncio.Lock()
        self._inode = 0

    async def __aenter__(self) -> "ControlServer":
        self._runner = web.AppRunner(
            self._application(), access_log=None, handle_signals=False, shutdown_timeout=_ANSWER_S
        )
        await self._runner.setup()
        listening = listen(self.path)
        self._inode = self.path.stat().st_ino
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._runner.server, sock=listening)  # type: ignore[arg-type]
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(OSError):
            if self.path.stat().st_ino == self._inode:  # not somebody's who came after us
                self.path.unlink()
        self._server.close()
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        monitor = self._monitor
        app = web.Application(client_max_size=BODY_MAX, middlewares=[_in_json])
        app.router.add_get("/status", _answers(lambda _: monitor.status()))
        app.router.add_get("/points", _answers(lambda request: monitor.points(_number(request, "after"))))
        app.router.add_get("/decisions", _answers(lambda request: monitor.decisions(_number(request, "after"))))
        app.router.add_get("/fills", _answers(lambda request: monitor.fills(_number(request, "after"))))
        app.router.add_get("/surface", _answers(lambda _: monitor.surface()))
        app.router.add_get("/health", self._health)
        app.router.add_get("/exposure", self._exposure)
        app.router.add_get("/decision", self._decision)
        app.router.add_get("/problem", self._problem)
        app.router.add_post("/operator", self._operator)
        app.router.add_post("/reload", self._reload)
        app.router.add_post("/forecaster", self._forecaster)
        return app

    # --- questions ---------------------------------------------------------------------------------------

    async def _health(self, _: web.Request) -> web.Response:
        status = self._monitor.status()
        told = {name: status[name] for name in ("healthy", "unhealthy")}
        return _response(told, 200 if status["healthy"] else 503)

    async def _exposure(self, _: web.Request) -> web.Response:
        told = self._monitor.exposure()
        return _refuse(404, "no decision yet") if told is None else _response(told)

    async def _decision(self, request: web.Request) -> web.Response:
        seq = _number(request, "seq") if "seq" in request.query else None
        record = self._monitor.decision(seq)
        if record is None:
            return _refuse(404, "no decision yet" if seq is None else f"no decision {seq} is known")
        return _response(record)

    async def _problem(self, _: web.Request) -> web.Response:
        told = self._monitor.problem()
        return _refuse(404, "no decision had anything to choose yet") if told is None else _response(told)

    # --- commands ----------------------------------------------------------------------------------------

    async def _operator(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        command = _COMMANDS.get(str(asked.get("command")))
        if command is None:
            return _refuse(400, _unknown("command", str(asked.get("command")), _COMMANDS))
        if command not in _NEVER_LATE and _is_late(asked):
            return _refuse(409, f"{command.value}: asked too long ago, nothing was done; ask again")
        who = _asked(request, command.value)
        self._actions.operator(command, who, str(asked.get("why", ""))[:WHY_MAX])
        try:
            status = self._monitor.status()
            after = {name: status[name] for name in ("armed", "mode", "mode_why", "unhealthy")}
            return _response({**after, "orders": len(status["orders"])})
        except Exception as error:
            log.exception("control.failed", path=request.path)
            return _refuse(500, f"{command.value} was done, but how things are now cannot be told: {error!r}")

    async def _reload(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        if _is_late(asked) or self._reloading.locked():
            return _refuse(
                409, "a reload is under way" if self._reloading.locked() else "asked too long ago; ask again"
            )
        dry_run, allow_loosen = asked.get("dry_run") is True, asked.get("allow_loosen") is True
        who = _asked(request, "reload", dry_run=dry_run, allow_loosen=allow_loosen)
        async with self._reloading:
            try:
                return _response(await self._actions.reload(who, dry_run=dry_run, allow_loosen=allow_loosen))
            except ConfigError as error:
                return _refuse(422, str(error))

    async def _forecaster(self, request: web.Request) -> web.Response:
        """{"name", "weight", "why"}: null is as configured, none at all what is offered. The contender's new line."""
        asked = await _body(request)
        name, contenders = str(asked.get("name")), self._contenders()
        if "weight" not in asked and name not in contenders:
            return _refuse(400, _unknown("forecaster", name, contenders))
        weight = asked.get("weight", contenders.get(name, {}).get("offered"))
        if why := _no_weight(name, weight, asked):
            return _refuse(400, why)
        if weight != 0 and _is_late(asked):
            return _refuse(409, f"{name}: asked too long ago, nothing was done; ask again")
        who = _asked(request, "demote" if weight == 0 else "promote", forecaster=name, weight=weight)
        if refused := await self._actions.rule(name, weight, who, str(asked.get("why", ""))[:WHY_MAX]):
            return _refuse(400, f"{name}: {refused}{_guess(name, contenders)}; nothing was changed")
        told = {"name": name, "weight": weight, "contender": self._contenders().get(name)}
        return _response(told | {"heard": self._actions.heard()})

    def _contenders(self) -> dict[str, dict[str, Any]]:
        return {line["name"]: line for line in self._monitor.status()["contenders"]}


# --- the socket -----------------------------------------------------------------------------------------------


def listen(path: Path) -> socket.socket:
    """A socket bound to `path`, 0660, in place of one left by a process that died.

    Raises ConfigError where another process answers there, or the path cannot be had.
    """
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(path)
        # Bound here and not by the loop: the umask is the whole process's, and nothing else runs before it is back.
        with short_address(path) as address, _umask(_UMASK):
            found.bind(address)
    except OSError as error:
        found.close()
        raise ConfigError(f"control socket {path}: {error.strerror or error}") from error
    except ConfigError:
        found.close()
        raise
    return found


def _clear(path: Path) -> None:
    """Remove a socket nobody listens on."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigError(f"control socket {path}: there is a file of that name, which is no socket")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe,
        short_address(path) as there,
    ):
        try:
            probe.connect(there)
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its backlog is full
            pass
    raise ConfigError(f"control socket {path}: another process answers there: is it running already?")


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# --- requests and answers -------------------------------------------------------------------------------------


def _response(told: Any, status: int = 200) -> web.Response:
    return web.Response(body=_json(told), status=status, content_type="application/json")


def _answers(ask: Callable[[web.Request], Any]) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return _response(ask(request))

    return handler


def _refuse(status: int, why: str) -> web.Response:
    return _response({"error": why}, status)


@web.middleware
async def _in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal as JSON; a bug of ours ends one answer, not the run."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _refuse(error.status, f"{request.method} {request.path}: {error.text or error.reason}")
    except Exception as error:
        log.exception("control.failed", path=request.path)
        return _refuse(500, f"{type(error).__name__}: {error}")


def _number(request: web.Request, name: str) -> int:
    """A query's number, 0 where it has none. Raises HTTPBadRequest."""
    text = request.query.get(name, "0")
    if not (text.isascii() and text.lstrip("-").isdigit() and len(text) <= 19):
        raise web.HTTPBadRequest(text=f"{name} is no number")
    return int(text)


async def _body(request: web.Request) -> dict[str, Any]:
    """A request's JSON object. Raises HTTPBadRequest, or HTTPRequestEntityTooLarge."""
    try:
        asked = msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise web.HTTPBadRequest(text=f"no JSON: {error}") from error
    if not isinstance(asked, dict):
        raise web.HTTPBadRequest(text="no JSON object")
    return asked


def _is_late(asked: dict[str, Any]) -> bool:
    """Whether the client gave up waiting before now; both ends read the same machine's clock."""
    until_ns = asked.get("valid_until_ns")
    return isinstance(until_ns, int) and time.monotonic_ns() > until_ns


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    return f"unknown {what} {name[:40]!r}{_guess(name, known)}; there are {', '.join(known) or 'none yet'}"


def _guess(name: str, known: Collection[str]) -> str:
    close = [] if name in known else get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _no_weight(name: str, weight: Any, asked: dict[str, Any]) -> str:
    """What is wrong with the weight asked for or offered, or ""."""
    if "weight" not in asked and not weight:
        return f"{name} is offered no weight: give it one with --weight"
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool) and 0.0 <= weight <= 1.0
    return "" if weight is None or number else f"{weight!r} is no weight: that is from 0 to 1"


def _asked(request: web.Request, command: str, **options: str | float | bool | None) -> str:
    """Log who commands what. Returns who: "uid 1000 (alice)"."""
    peer = request.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("iii", peer)
    user = _user(uid)
    log.info("operator.asked", command=command, uid=uid, pid=pid, user=user, **options)
    return f"uid {uid}" + (f" ({user})" if user else "")


def _user(uid: int) -> str:
    """A local user's name or "". Not by `pwd`: that may ask a directory server, and the loop would wait for it."""
    with suppress(OSError):
        for line in Path("/etc/passwd").read_text(errors="replace").splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[2] == str(uid):
                return fields[0]
    return ""
