"""`dea-daemon replay`: a tape's events through the same engine again, every decision compared bit for bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from dea_daemon.domain.events import AnyEvent, ParametersReloaded, RunStarted
from dea_daemon.engine import begin, reload, step
from dea_daemon.shell.progress import progress
from dea_daemon.shell.tape import TapeError, TapeHeader, decode_decision, encode_decision
from dea_daemon.shell.tape_reader import TapeReader, read_tape


def run_replay(tape: Path, json_lines: bool) -> int:
    """0 if every decision is the recorded one, 1 if not, 65 (raised) where the tape cannot be replayed."""
    from dea_daemon.shell.output import emit

    reader = read_tape(tape)
    finished = replay(reader, show=not json_lines)
    if json_lines:
        emit(finished)
    else:
        _tell(finished)
    return 1 if finished["differences"] else 0


def replay(reader: TapeReader, show: bool = False) -> dict[str, Any]:
    """Step through a tape. Returns `replay.finished` with the first difference, if any."""
    steps = reader.steps()
    first = next(steps, None)
    if first is None or not isinstance(first[0], RunStarted):
        raise TapeError("the tape does not begin with the start of a run: it cannot be replayed")
    state, params = begin(first[0])
    events = decisions = differences = 0
    where: dict[str, Any] | None = None
    with progress("events", show) as advance:
        for event, recorded in steps:
            if isinstance(event, ParametersReloaded):
                params = reload(state, event)
            encoded = encode_decision(step(state, event, params))
            state.account.new_fills.clear()  # the shell's outboxes
            state.account.orders.changed.clear()
            events += 1
            advance(1)
            decisions += state.seq > decisions
            if encoded != recorded:
                differences += 1
                where = where or _difference(events, event, recorded, encoded)
    return {
        "event": "replay.finished",
        "run_id": first[0].run_id,
        "events": events,
        "decisions": decisions,
        "differences": differences,
        "first_difference": where,
        "torn": reader.torn,
        "other_build": list(reader.header.differences(TapeHeader.here(first[0].run_id))),
    }


def _difference(number: int, event: AnyEvent, recorded: bytes, encoded: bytes) -> dict[str, Any]:
    """The first place where recorded and replayed decision part, by path."""
    then, now = (msgspec.to_builtins(decode_decision(b)) if b else None for b in (recorded, encoded))
    path, was, is_ = next(_parted("decision", then, now), ("decision", then, now))
    return {"event_number": number, "event": type(event).__name__, "path": path, "recorded": was, "replayed": is_}


def _parted(path: str, then: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in then.keys() | now.keys():
            yield from _parted(f"{path}.{key}", then.get(key), now.get(key))
    elif isinstance(then, list | tuple) and isinstance(now, list | tuple) and len(then) == len(now):
        for k, (a, b) in enumerate(zip(then, now, strict=True)):
            yield from _parted(f"{path}[{k}]", a, b)
    elif then != now and not (then != then and now != now):
        yield path, then, now


def _tell(finished: dict[str, Any]) -> None:
    import click

    click.echo(f"{finished['events']:,} events, {finished['decisions']:,} decisions replayed")
    if finished["torn"]:
        click.echo(f"note: {finished['torn']}")
    if finished["other_build"]:
        click.echo(f"note: another build wrote this tape ({'; '.join(finished['other_build'])})")
    if where := finished["first_difference"]:
        click.echo(f"{finished['differences']:,} decisions differ, first at event {where['event_number']:,}:")
        click.echo(f"  {where['path']}: recorded {where['recorded']!r}, replayed {where['replayed']!r}")
    else:
        click.echo("every decision is identical")
