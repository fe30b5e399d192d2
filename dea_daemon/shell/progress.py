"""A progress bar on stderr for long work, and nothing where nobody looks."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_REDRAW_S = 0.1


@contextmanager
def progress(what: str, show: bool, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Gives `advance(n)`. Drawn only on a terminal; cheap enough to call once an event."""
    if not (show and sys.stderr.isatty()):
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        held, drawn_at = 0, time.monotonic()

        def advance(n: int) -> None:
            nonlocal held, drawn_at
            held += n
            # Drawing costs more than an event does: a few times a second is enough.
            if (now := time.monotonic()) - drawn_at > _REDRAW_S:
                bar.advance(task, held)
                held, drawn_at = 0, now

        yield advance
        bar.advance(task, held)
