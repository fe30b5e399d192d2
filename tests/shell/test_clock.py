"""The clock: one that never steps, and the system's."""

import time

from dea_daemon.shell.clock import Clock


def test_the_receipt_clock_ignores_a_step_of_the_wall_clock(monkeypatch):
    clock = Clock()
    before = clock.now_ns()
    monkeypatch.setattr(time, "time_ns", lambda: 10**9)
    assert 0 <= clock.now_ns() - before < 10**9
    assert clock.utc_ns() == 10**9


def test_both_clocks_begin_together():
    clock = Clock()
    assert abs(clock.now_ns() - clock.utc_ns()) < 10**9
