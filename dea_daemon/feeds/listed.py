"""Contracts as a recording lists them: the venue's own answers to a request for its contracts."""

from collections.abc import Iterable, Iterator

import msgspec

from dea_daemon.domain.errors import VenueError
from dea_daemon.domain.instruments import Instrument
from dea_daemon.feeds import binance, deribit_mapping, okx_mapping

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_rows = msgspec.json.Decoder(list[dict[str, object]]).decode


class _OkxArg(msgspec.Struct, rename="camel"):
    channel: str = ""
    inst_id: str = ""


class _OkxMessage(msgspec.Struct):
    arg: _OkxArg


def contracts_listed(bodies: Iterable[bytes], venue: str) -> dict[str, Instrument]:
    """By name; the last word on each. Answers to anything else, and rows that cannot be read, are passed over."""
    found: dict[str, Instrument] = {}
    for body in bodies:
        try:
            found |= {i.name: i for i in (okx_mapping.instruments_from(body) if venue == "okx" else _of(body, venue))}
        except (msgspec.MsgspecError, VenueError):
            continue
    return found


def _of(body: bytes, venue: str) -> Iterator[Instrument]:
    rows = _object(body).get("result" if venue == "deribit" else "symbols")
    for row in _rows(rows) if rows is not None else ():
        try:
            made = deribit_mapping.instrument_from(row) if venue == "deribit" else binance.instrument_from(row)
        except VenueError:
            continue
        if made is not None:
            yield made


def okx_names(payloads: Iterable[bytes]) -> list[str]:
    """The contracts whose books are among these messages, by order of appearance."""
    read, names = msgspec.json.Decoder(_OkxMessage).decode, dict[str, None]()
    for payload in payloads:
        try:
            arg = read(payload).arg
        except msgspec.MsgspecError:
            continue
        if arg.channel == "books":
            names[arg.inst_id] = None
    return list(names)
