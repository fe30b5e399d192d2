"""The tape: what goes in comes out, bit for bit, and what cannot be read is said."""

import itertools
import math
import os
import resource
import subprocess
import sys
import types
import typing
import zlib
from decimal import Decimal
from enum import Enum
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dea_daemon.domain.commands import Approved, CancelOrder, CreateOrder
from dea_daemon.domain.decisions import NOTHING, Decision, Note
from dea_daemon.domain.events import AnyEvent, DecisionDue, FeedAlive, MarkUpdated, QuoteUpdated
from dea_daemon.domain.instruments import Side
from dea_daemon.domain.orders import TimeInForce
from dea_daemon.shell.tape import (
    HEAD,
    DecisionTaken,
    TapeError,
    TapeGap,
    TapeHeader,
    TapeWriter,
    decode_decision,
    encode_decision,
    segments,
)
from dea_daemon.shell.tape_reader import TapeReader, read_tape
from tests.shell.ledger_samples import record

HEADER = TapeHeader.here("run-1")
ROOT = Path(__file__).parent.parent.parent
INT64 = st.integers(-(2**63), 2**63 - 1)
SCALARS: dict[object, st.SearchStrategy[typing.Any]] = {
    int: INT64,
    float: st.floats(),
    str: st.text(max_size=20),
    bool: st.booleans(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
}


def any_of(kind: typing.Any) -> st.SearchStrategy[typing.Any]:
    """Any value of an event's field, or any event, by its type."""
    if kind in SCALARS:
        return SCALARS[kind]
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return st.lists(any_of(args[0]), max_size=4)
    if origin is tuple and args[-1] is ...:
        return st.lists(any_of(args[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(any_of, args))
    if origin is types.UnionType:
        return st.one_of([st.none() if arg is type(None) else any_of(arg) for arg in args])
    if issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    hints = typing.get_type_hints(kind)
    fields = kind._fields if issubclass(kind, tuple) else kind.__struct_fields__
    return st.builds(kind, **{name: any_of(hints[name]) for name in fields})


EVENT_TYPES = sorted(typing.get_args(AnyEvent), key=lambda kind: kind.__name__)


def mark(n: int) -> MarkUpdated:
    return MarkUpdated(n, n, 0, float(n), 0.0, 0.0, 0.0)


def decided(n: int) -> Decision:
    return Decision(record=record(n), notes=(Note("order.sent", {"n": n, "ok": True, "at": 0.1 * n, "why": "x"}),))


def written(path: Path, events: list[AnyEvent]) -> Path:
    writer = TapeWriter.to_file(path, HEADER)
    for event in events:
        writer.event(event)
    writer.close()
    return path


def blocks(path: Path, count: int, per_block: int = 5) -> Path:
    """A tape with a block for each `per_block` events."""
    writer = TapeWriter.to_file(path, HEADER)
    for n in range(count * per_block):
        if n % per_block == 0:
            writer.flush()
        writer.event(mark(n))
    writer.close()
    return path


def offsets(path: Path) -> list[int]:
    """Where each block starts, and the end."""
    data, found = path.read_bytes(), [0]
    while found[-1] < len(data):
        found.append(found[-1] + HEAD.size + HEAD.unpack_from(data, found[-1])[0])
    return found


def numbers(reader: TapeReader) -> list[int]:
    return [event.ts_recv_ns for event, _ in reader.steps()]


# --- what goes in comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_event_comes_back_as_it_went(kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("tape") / "x.tape"

    @settings(max_examples=12, deadline=None)
    @given(st.lists(any_of(kind), min_size=1, max_size=4))
    def law(events):
        reader = read_tape(written(path, events))
        back = [event for event, _ in reader.steps()]
        assert [type(event) for event in back] == [kind] * len(events)
        # As bytes: NaN is not equal to itself, and -0.0 is to 0.0.
        assert msgspec.msgpack.encode(back) == msgspec.msgpack.encode(events)
        assert reader.torn == ""

    law()


def test_nan_and_minus_zero_survive(tmp_path):
    quote = QuoteUpdated(1, 1, 0, math.nan, 0.0, -0.0, math.inf)
    ((back, _),) = read_tape(written(tmp_path / "x.tape", [quote])).steps()
    assert isinstance(back, QuoteUpdated)
    assert math.isnan(back.bid)
    assert math.copysign(1.0, back.ask) == -1.0
    assert back.ask_amount == math.inf


def test_a_numpy_scalar_is_recorded_as_its_number(tmp_path):
    path = written(tmp_path / "x.tape", [MarkUpdated(1, 1, np.int64(3), np.float64(2.5))])  # type: ignore[arg-type]
    ((back, _),) = read_tape(path).steps()
    assert isinstance(back, MarkUpdated)
    assert (back.row, back.mark_price, type(back.mark_price)) == (3, 2.5, float)


def test_each_event_comes_with_its_decision(tmp_path):
    writer = TapeWriter.to_file(tmp_path / "x.tape", HEADER)
    expected = []
    for n in range(2_000):  # several blocks
        event, decision = (DecisionDue(n, n, "tick"), decided(n)) if n % 7 == 0 else (mark(n), NOTHING)
        writer.event(event)
        writer.decision(decision)
        expected.append((event, encode_decision(decision)))
    writer.close()
    assert list(read_tape(tmp_path / "x.tape").steps()) == expected
    assert len(offsets(tmp_path / "x.tape")) > 5


def test_a_decision_can_be_decoded_whole():
    create = CreateOrder("d1", 0, Side.BUY, 3, 7, TimeInForce.IOC, False, True, 9, 4, "why")
    decision = replace(decided(3), commands=(CancelOrder("d0", 0, "v", "why"), Approved(create)), wake="fill")
    assert decode_decision(encode_decision(decision)) == decision


@pytest.mark.parametrize("change", [{"equity_usd": math.nan}, {"equity_usd": -0.0}, {"seq": 4}, {"notes": ()}])
def test_any_difference_between_decisions_shows_in_the_bytes(change):
    one = Decision(record=record(3, equity_usd=0.0))
    other = Decision(record=replace(record(3, equity_usd=0.0), **change))
    assert encode_decision(one) == encode_decision(Decision(record=record(3, equity_usd=0.0)))
    assert encode_decision(one) != encode_decision(other)


def test_a_decision_that_asks_nothing_takes_no_space(tmp_path):
    writer = TapeWriter.to_file(tmp_path / "x.tape", HEADER)
    writer.event(mark(1))
    writer.decision(Decision())
    writer.close()
    assert list(read_tape(tmp_path / "x.tape")) == [mark(1)]
    assert encode_decision(Decision()) == b""


def test_the_header_tells_builds_apart():
    assert HEADER.differences(TapeHeader.here("another run")) == ()
    assert HEADER.differences(replace(HEADER, numpy="0", cpu_features=())) == (
        f"numpy: {HEADER.numpy} / 0",
        f"cpu_features: {HEADER.cpu_features} / ()",
    )


def test_the_header_comes_back(tmp_path):
    assert read_tape(written(tmp_path / "x.tape", [])).header == HEADER
    assert HEADER.blas.strip("? ")
    assert HEADER.python.startswith("3.")


# --- tails, damage, things that are not tapes ----------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(cut=st.floats(0.0, 1.0))
def test_a_torn_tape_is_read_to_the_last_whole_block_and_said_so(tmp_path_factory, cut):
    path = blocks(tmp_path_factory.mktemp("tape") / "x.tape", 6)
    ends = offsets(path)
    size = ends[1] + int(cut * (ends[-1] - ends[1]))
    os.truncate(path, size)
    reader = read_tape(path)
    whole = sum(end <= size for end in ends[2:])
    assert numbers(reader) == list(range(5 * whole))
    assert bool(reader.torn) == (size not in ends)
    if reader.torn:
        assert f"at byte {ends[whole + 1]}" in reader.torn


@settings(max_examples=150, deadline=None)
@given(where=st.floats(0.0, 1.0, exclude_max=True), flip=st.integers(1, 255))
def test_no_damaged_byte_goes_unnoticed(tmp_path_factory, where, flip):
    path = blocks(tmp_path_factory.mktemp("tape") / "x.tape", 6)
    ends = offsets(path)
    data = bytearray(path.read_bytes())
    at = int(where * len(data))
    data[at] ^= flip
    path.write_bytes(data)
    damaged = sum(end <= at for end in ends) - 1
    if ends[damaged + 1] == len(data) and at >= ends[damaged] + HEAD.size:
        reader = read_tape(path)  # the body of the last block: as good as torn
        assert numbers(reader) == list(range(25))
        assert "garbled" in reader.torn
    else:
        with pytest.raises(TapeError, match=f"damaged at byte {ends[damaged]}"):
            numbers(read_tape(path))


def test_zeros_at_the_end_are_a_torn_tail_and_zeros_in_the_middle_are_damage(tmp_path):
    path = blocks(tmp_path / "x.tape", 3)
    data, ends = path.read_bytes(), offsets(path)
    path.write_bytes(data + bytes(5_000))
    reader = read_tape(path)
    assert numbers(reader) == list(range(15))
    assert "only zeros" in reader.torn
    path.write_bytes(data[: ends[2]] + bytes(ends[3] - ends[2]) + data[ends[3] :])
    with pytest.raises(TapeError, match=f"damaged at byte {ends[2]}"):
        numbers(read_tape(path))


@pytest.mark.parametrize("content", [b"", b"short", b"not a tape, whatever its name says" * 9])
def test_what_is_not_a_tape_is_said_to_be_none(tmp_path, content):
    (tmp_path / "x.tape").write_bytes(content)
    with pytest.raises(TapeError):
        read_tape(tmp_path / "x.tape")


def test_another_formats_block_is_not_taken_for_a_header(tmp_path):
    body = zlib.compress(b"\4\0\0\0null")
    head = HEAD.pack(len(body), zlib.crc32(body), 0)[:8]
    (tmp_path / "x.tape").write_bytes(head + zlib.crc32(head).to_bytes(4, "little") + body)
    with pytest.raises(TapeError, match="not a tape"):
        read_tape(tmp_path / "x.tape")


def test_no_tape_is_no_tape(tmp_path):
    for path in (tmp_path / "none.tape", tmp_path):
        with pytest.raises(TapeError):
            read_tape(path)


def test_a_killed_writers_tape_is_whole_to_its_last_block(tmp_path):
    script = """
import sys
from pathlib import Path
from dea_daemon.domain.events import MarkUpdated
from dea_daemon.shell.tape import TapeHeader, TapeWriter
writer = TapeWriter.to_file(Path(sys.argv[1]), TapeHeader.here("run-1"))
n = 0
while True:
    writer.event(MarkUpdated(n, n, 0, float(n)))
    n += 1
    if n == 3000:
        print("go", flush=True)
"""
    path = tmp_path / "x.tape"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    found = numbers(read_tape(path))
    assert found == list(range(len(found)))
    assert len(found) > 1_000


# --- when it cannot be written ---------------------------------------------------------------------------


def test_a_disk_that_fails_costs_a_stretch_which_is_marked(tmp_path, monkeypatch):
    path = tmp_path / "x.tape"
    writer = TapeWriter.to_file(path, HEADER)
    writer.event(mark(0))
    writer.flush()
    good = os.pwrite
    with monkeypatch.context() as patch:

        def full(fd, data, offset):
            if len(data) > 20:
                return good(fd, data[:20], offset)
            raise OSError(28, "No space left on device")

        patch.setattr("os.pwrite", full)
        for n in range(1, 4):
            writer.event(mark(n))
            writer.decision(decided(n))
            writer.flush()
    writer.event(mark(4))
    writer.close()
    reader = read_tape(path)
    items = list(reader)
    assert items[:1] + items[2:] == [mark(0), mark(4)]
    assert isinstance(items[1], TapeGap)
    assert (items[1].events_lost, reader.torn) == (3, "")
    assert "No space left" in items[1].why
    steps = read_tape(path).steps()
    assert next(steps) == (mark(0), b"")
    with pytest.raises(TapeError, match="3 events are missing here"):
        next(steps)


def test_a_file_that_may_not_grow_costs_the_rest_and_never_raises(tmp_path):
    path = tmp_path / "x.tape"
    writer = TapeWriter.to_file(path, HEADER)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, before[1]))
    try:
        for n in range(20_000):
            writer.event(mark(n))
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    reader = read_tape(path)
    found = numbers(reader)
    assert found == list(range(len(found)))
    assert 0 < len(found) < 20_000
    assert reader.torn == ""


def test_what_cannot_be_encoded_is_a_gap_and_never_raises(tmp_path):
    writer = TapeWriter.to_file(tmp_path / "x.tape", HEADER)
    writer.event(mark(1))
    writer.event(MarkUpdated(2**70, 1, 0, 1.0))
    writer.event(FeedAlive(3, object(), 0, False))  # type: ignore[arg-type]
    writer.decision(Decision(wake=object()))  # type: ignore[arg-type]
    writer.event(mark(4))
    writer.close()
    kinds = [type(item) for item in read_tape(tmp_path / "x.tape")]
    assert kinds == [MarkUpdated, TapeGap, TapeGap, TapeGap, MarkUpdated]


def test_a_tape_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TapeError, match="file"):
        TapeWriter.to_file(tmp_path / "file" / "x.tape", HEADER)
    with pytest.raises(TapeError):
        TapeWriter.to_directory(tmp_path / "file", HEADER, 1 << 20, 60.0)


def test_an_event_and_its_decision_share_a_block(tmp_path, monkeypatch):
    clock = itertools.count(0, 3_000_000_000)  # every look at it is a block
    monkeypatch.setattr("time.monotonic_ns", lambda: next(clock))
    writer = TapeWriter.to_file(tmp_path / "x.tape", HEADER)
    for n in range(10):
        writer.event(mark(n))
        writer.decision(decided(n))
    writer.close()
    ends = offsets(tmp_path / "x.tape")
    assert len(ends) == 12  # the header, ten blocks, the end
    for end in ends[2:]:
        os.truncate(tmp_path / "x.tape", end) if end == ends[5] else None
    assert [len(encoded) > 0 for _, encoded in read_tape(tmp_path / "x.tape").steps()] == [True] * 4


# --- segments ----------------------------------------------------------------------------------------------


def recorded(directory: Path, run_id: str, count: int, max_bytes: int = 1 << 18, max_age_s: float = 1e6) -> None:
    writer = TapeWriter.to_directory(directory, TapeHeader.here(run_id), max_bytes, max_age_s)
    for n in range(count):
        writer.event(mark(n))
        writer.decision(decided(n))
    writer.close()


def test_a_run_over_several_segments_reads_as_one(tmp_path):
    recorded(tmp_path, "run-1", 5)
    recorded(tmp_path, "run-2", 5_000)
    reader = read_tape(tmp_path)
    assert (reader.header.run_id, reader.header.segment) == ("run-2", 2)
    assert numbers(reader) == list(range(5_000))
    assert len(segments(tmp_path)) > 4
    assert sum(isinstance(item, DecisionTaken) for item in read_tape(tmp_path / "000002.tape")) == 5_000
    assert numbers(read_tape(tmp_path / "000001.tape")) == list(range(5))


def test_the_directory_stays_within_its_size_and_a_pruned_run_is_refused(tmp_path):
    recorded(tmp_path, "run-1", 20_000, max_bytes=200_000)
    assert 100_000 < sum(path.stat().st_size for _, path in segments(tmp_path)) <= 200_000
    assert segments(tmp_path)[0][0] > 1
    with pytest.raises(TapeError, match=r"000001.tape is gone, and run run-1 began in it"):
        read_tape(tmp_path)
    with pytest.raises(TapeError, match=r"middle of run run-1, which began in 000001.tape"):
        read_tape(segments(tmp_path)[0][1])


def test_old_segments_go(tmp_path):
    recorded(tmp_path, "run-1", 5)
    recorded(tmp_path, "run-2", 5)
    os.utime(tmp_path / "000001.tape", (0, 0))
    recorded(tmp_path, "run-3", 5, max_age_s=60.0)
    assert [number for number, _ in segments(tmp_path)] == [2, 3]


def test_a_missing_tail_of_an_earlier_segment_is_not_passed_over(tmp_path):
    recorded(tmp_path, "run-1", 5_000)
    os.truncate(tmp_path / "000002.tape", (tmp_path / "000002.tape").stat().st_size - 1)
    with pytest.raises(TapeError, match="events are missing before this segment"):
        numbers(read_tape(tmp_path))


def test_a_segment_that_cannot_be_made_leaves_the_one_in_use(tmp_path, monkeypatch):
    writer = TapeWriter.to_directory(tmp_path, HEADER, 16 * 2_000, 60.0)
    good = os.pwrite
    refused: list[int] = []

    def no_second_file(fd, data, offset):
        if offset == 0 and not refused:
            refused.append(fd)
            raise OSError(28, "No space left on device")
        return good(fd, data, offset)

    monkeypatch.setattr("os.pwrite", no_second_file)
    for n in range(2_000):
        writer.event(mark(n))
    writer.close()
    assert refused
    items = list(read_tape(tmp_path))
    gaps = [item for item in items if isinstance(item, TapeGap)]
    assert len(gaps) == 1
    assert len(items) - 1 + gaps[0].events_lost == 2_000


def test_a_directory_and_its_tapes_are_private(tmp_path):
    recorded(tmp_path / "tape", "run-1", 1)
    assert (tmp_path / "tape").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "tape" / "000001.tape").stat().st_mode & 0o777 == 0o600
