"""The live view: a run's status drawn on the terminal it was started from, and where the log goes meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from dea_daemon.shell.picture import Picture
from dea_daemon.shell.screen import Screen

log = structlog.get_logger()
_REDRAW_S = 0.25


class TerminalView:
    """Draws what `get_status` says, four times a second, in the loop it is opened in: about 2 ms a picture.

    It never waits for the terminal, and where that is gone, or drawing fails, only the view ends. `ended` is called
    once the terminal is given back.
    """

    def __init__(
        self, get_status: Callable[[], dict[str, Any]], title: str, ended: Callable[[], object] = lambda: None
    ) -> None:
        self._get_status, self._title, self._ended = get_status, title, ended
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "TerminalView":
        self._task = asyncio.create_task(self.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def run(self) -> None:
        """Until cancelled, or the view cannot go on. Raises nothing but CancelledError."""
        why: Exception | None = None
        try:
            await self._draw()
        except Exception as error:  # noqa: BLE001 the terminal is gone, or a bug of the picture: trading goes on
            why = error
        finally:
            self._ended()
        log.warning("view.ended", why=f"{type(why).__name__}: {why}")

    async def _draw(self) -> None:
        screen = Screen()
        try:
            while True:
                screen.paint(Picture(self._get_status(), self._title, hint="Ctrl-C drains and ends"))
                await asyncio.sleep(_REDRAW_S)
        finally:
            screen.close()
