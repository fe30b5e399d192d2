"""The ledger when things go wrong: killed, torn, full, locked, read-only, damaged."""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dea_daemon.domain.errors import LedgerError
from dea_daemon.shell.ledger import Batch, Ledger
from tests.shell.ledger_samples import NOW, UNIVERSE, booked, order, record
from tests.shell.ledger_writer import PER_WRITE, batch

ROOT = Path(__file__).parent.parent.parent


def numbers(ledger: Ledger) -> list[int]:
    """The sequence numbers of the orders in it, after a look at every page."""
    ledger.check()
    return [o.cause_seq for o in ledger.recover(UNIVERSE, NOW).restored]


def writer(path: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.shell.ledger_writer", str(path), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", range(6))
def test_after_kill_9_every_acknowledged_write_is_there_and_none_by_half(tmp_path, seed):
    path = tmp_path / "ledger.sqlite"
    process = writer(path)
    assert process.stdout
    process.stdout.readline()  # it is in its loop
    time.sleep(random.Random(seed).uniform(0, 0.15))
    process.kill()
    said = [0, *(int(line) for line in process.stdout.read().split("\n")[:-1])]
    process.wait()
    process.stdout.close()
    ledger = Ledger.open(path)
    found = numbers(ledger)
    ledger.close()
    assert found == list(range(len(found)))
    assert len(found) % PER_WRITE == 0
    assert len(found) >= PER_WRITE * len(said)


@pytest.fixture(scope="module")
def crashed():
    """A ledger as a crash leaves it: six writes, all still in the write-ahead log."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.open(Path(folder) / "open" / "ledger.sqlite")
        with contextlib.closing(sqlite3.connect(ledger.path)) as db:  # else the log's end may be the migration's
            assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        for number in range(6):
            ledger.write(batch(number), UNIVERSE, NOW)
        left = Path(folder) / "left"
        shutil.copytree(ledger.path.parent, left)
        ledger.close()
        yield left


@contextlib.contextmanager
def opened_copy(crashed, cut: int | None = None, flip: int | None = None):
    """The crashed ledger with its log cut to `cut` bytes, or one byte of it inverted."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(crashed, copy)
        wal = copy / "ledger.sqlite-wal"
        data = bytearray(wal.read_bytes())[:cut]
        if flip is not None:
            data[flip] ^= 0xFF
        wal.write_bytes(data)
        ledger = Ledger.open(copy / "ledger.sqlite")
        yield ledger
        ledger.close()


def test_a_whole_log_is_recovered_and_nothing_is_said(crashed):
    with opened_copy(crashed) as ledger:
        assert numbers(ledger) == list(range(18))
        assert ledger.torn == ""


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0.0, 1.0))
def test_a_torn_log_is_recovered_to_the_last_whole_write(crashed, share):
    size = (crashed / "ledger.sqlite-wal").stat().st_size
    with opened_copy(crashed, cut=int(share * size)) as ledger:
        found = numbers(ledger)
        assert found == list(range(len(found)))
        assert len(found) % PER_WRITE == 0
        ledger.write(batch(100), UNIVERSE, NOW)
        assert len(numbers(ledger)) == len(found) + PER_WRITE


def test_a_torn_log_is_said_so(crashed):
    size = (crashed / "ledger.sqlite-wal").stat().st_size
    for cut in (size - 1, size - 4_096, size - 4_120 + 3):
        with opened_copy(crashed, cut=cut) as ledger:
            assert "dropped" in ledger.torn
            assert numbers(ledger) == list(range(15))


def test_a_garbled_log_is_recovered_to_the_write_before_and_said_so(crashed):
    size = (crashed / "ledger.sqlite-wal").stat().st_size
    with opened_copy(crashed, flip=size - 100) as ledger:
        assert numbers(ledger) == list(range(15))
        assert "dropped" in ledger.torn
    with opened_copy(crashed, flip=20) as ledger:  # its very header: nothing in it counts
        assert numbers(ledger) == []
        assert "dropped" in ledger.torn


def test_a_full_disk_fails_the_write_and_a_freed_one_takes_it(tmp_path):
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    waiting = Batch(
        intents=[order(n, reason="x" * 400) for n in range(200)],
        fills=[booked("t1")],
        decisions=[record(1)],
        peak_equity_usd=5.0,
    )
    with pytest.raises(LedgerError, match="full"):
        ledger.write(waiting, UNIVERSE, NOW)
    assert numbers(ledger) == []
    assert (len(waiting.intents), len(waiting.fills), waiting.decisions) == (200, 1, [])
    ledger._db.execute("PRAGMA max_page_count = 100000")
    ledger.write(waiting, UNIVERSE, NOW)
    assert len(numbers(ledger)) == 200
    assert ledger.recover(UNIVERSE, NOW).fills_seen == ((0, "t1"),)
    ledger.close()


def test_a_disk_that_refuses_to_grow_fails_the_write_and_recovers(tmp_path):
    path = tmp_path / "ledger.sqlite"
    process = writer(path, "220000")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    *before, failed, last = output.splitlines()
    assert failed.startswith("failed 3 ")
    assert len(before) > 3
    ledger = Ledger.open(path)
    assert numbers(ledger) == list(range(PER_WRITE * (int(last) + 1)))
    ledger.close()


def test_a_lock_by_another_process_fails_the_write_soon_and_not_for_good(tmp_path):
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    intruder = sqlite3.connect(ledger.path, isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    waiting = batch(0)
    began = time.monotonic()
    with pytest.raises(LedgerError, match="locked"):
        ledger.write(waiting, UNIVERSE, NOW)
    assert time.monotonic() - began < 0.5
    with pytest.raises(LedgerError, match="locked"):
        ledger.next_epoch()
    intruder.execute("ROLLBACK")
    ledger.write(waiting, UNIVERSE, NOW)
    assert numbers(ledger) == [0, 1, 2]
    intruder.close()
    ledger.close()


def test_a_reader_does_not_hold_up_a_write(tmp_path):
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    reader = sqlite3.connect(ledger.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM intents").fetchone()
    ledger.write(batch(0), UNIVERSE, NOW)
    assert numbers(ledger) == [0, 1, 2]
    reader.close()
    ledger.close()


@contextlib.contextmanager
def as_nobody():
    """Root may write anywhere: be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_directory_is_refused(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with as_nobody():
            for path in (Path(folder) / "ledger.sqlite", Path(folder) / "state" / "ledger.sqlite"):
                with pytest.raises(LedgerError, match="Permission denied"):
                    Ledger.open(path)
        Path(folder).chmod(0o755)


def test_a_place_that_cannot_be_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="file"):
        Ledger.open(tmp_path / "file" / "ledger.sqlite")


def test_an_unencodable_decision_fails_the_write_and_not_the_daemon(tmp_path):
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    waiting = Batch(intents=[order(1)], decisions=[record(1, cause=object())])
    with pytest.raises(LedgerError, match="cannot be recorded"):
        ledger.write(waiting, UNIVERSE, NOW)
    assert numbers(ledger) == []
    ledger.write(waiting, UNIVERSE, NOW)  # without the decision
    assert numbers(ledger) == [1]
    ledger.close()


def test_a_check_finds_a_damaged_page_and_a_missing_parent(tmp_path):
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger.open(path)
    for number in range(20):
        ledger.write(batch(number), UNIVERSE, NOW)
    ledger.close()
    shutil.copy(path, tmp_path / "other.sqlite")
    db = sqlite3.connect(path)
    (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'intents'").fetchone()
    db.close()
    with path.open("r+b") as file:
        file.seek(4_096 * (page - 1))
        file.write(b"\xff" * 100)
    ledger = Ledger.open(path)
    with pytest.raises(LedgerError, match="damaged"):
        ledger.check()
    ledger.close()
    db = sqlite3.connect(tmp_path / "other.sqlite")
    db.execute("DELETE FROM intents WHERE cause_seq = 4")
    db.commit()
    db.close()
    ledger = Ledger.open(tmp_path / "other.sqlite")
    with pytest.raises(LedgerError, match="order_states without its intents"):
        ledger.check()
    ledger.close()
