"""The terminal view: what a status looks like, and that the terminal is given back."""

import asyncio
import contextlib
import os
import pty
import re
import termios
import time
from io import StringIO
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from dea_daemon.shell.figures import band_bar, fit, limit_bar
from dea_daemon.shell.picture import Picture
from dea_daemon.shell.screen import Screen
from dea_daemon.shell.terminal import TerminalView
from tests.shell.status_samples import NOW_NS, factor, fill, greeks, instrument, option, status, with_options

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def painted(told: dict[str, Any], width: int = 100, height: int = 50, **more) -> str:
    console = Console(file=StringIO(), force_terminal=True, color_system="256", width=width, height=height)
    with console.capture() as capture:
        console.print(Picture(told, "demo", **more), end="", soft_wrap=True)
    return capture.get()


def drawn(told: dict[str, Any], width: int = 100, height: int = 50, **more) -> str:
    return _CODES.sub("", painted(told, width, height, **more))


# --- the picture -----------------------------------------------------------------------------------------------

CROWDED = status(
    instruments=[instrument(f"BTC-{n}-VERY-LONG-NAME") for n in range(200)],
    limits=[dict(limit="instrument", subject=f"BTC-{n}", used=n, allowed=100.0) for n in range(100)],
    recent_fills=[fill(n) for n in range(20)],
    clips=[dict(limit="net", subject="delta:BTC", wanted=5e5, allowed=4e5, why="max_net_usd")] * 9,
)


@pytest.mark.parametrize("told", [status(), CROWDED, with_options(), {}], ids=["small", "crowded", "options", "empty"])
@pytest.mark.parametrize("size", [(20, 3), (40, 10), (80, 24), (100, 30), (149, 50), (150, 20), (250, 70)])
def test_the_picture_fits_any_terminal(told, size):
    lines = drawn(told, *size, hint="q leaves", notice="no answer for 4 s").split("\n")
    assert len(lines) <= size[1]
    assert max(cell_len(line) for line in lines) <= size[0]


def test_a_small_terminal_still_shows_every_part():
    told = drawn(CROWDED, 80, 24)
    for part in ("normal", "armed", "equity 974,823", "exposure", "limits used", "cut by", "prices", "feeds",
                 "working", "orders and fills", "what happened"):  # fmt: skip
        assert part in told


def test_what_does_not_fit_is_counted():
    shown = drawn(CROWDED, 80, 24).count("VERY-LONG-NAME")
    assert shown >= 2
    assert f"prices +{200 - shown}" in drawn(CROWDED, 80, 24)
    assert "+" not in drawn(status(), 100, 60)


def test_contracts_that_are_held_come_first():
    told = status(instruments=[instrument("FLAT"), instrument("HELD", position_lots=-3)])
    text = drawn(told)
    assert text.index("HELD") < text.index("FLAT")


def test_options_show_their_greeks_by_underlying_and_contract():
    lines = [" ".join(line.split()) for line in drawn(with_options()).split("\n")]
    assert "BTC 5,995 -160 -122 46.5 7d 38.4 90d -262" in lines
    assert "BTC-27MAR26-100000-C -30 46.0 -99,286 -4,974 -508 81.0 d" in lines


def test_a_surface_shows_its_terms_and_whether_it_is_relied_upon():
    lines = [" ".join(line.split()) for line in drawn(with_options()).split("\n")]
    assert [line for line in lines if line.startswith("BTC 46.2 -3.1 +0.8 99.7 % 2.5 s yes")]
    assert [line for line in lines if line.startswith("ETH - - - - - no: none yet")]
    assert "relied upon" not in drawn(status())


def test_a_book_without_options_looks_as_before():
    flat = greeks(gamma_usd_1pct=0.0, vega_usd_1pt=0.0, theta_usd_day=0.0, vega_by_expiry={})
    assert drawn(status(greeks={"BTC": flat}, options=[])) == drawn(status())
    assert "options" not in drawn(status())


def test_the_option_that_expires_next_comes_first_and_counts_down():
    text = drawn(with_options())
    assert text.index("BTC-9JAN26") < text.index("BTC_USDC-30JAN26") < text.index("BTC-27MAR26")
    assert "12:43:12" in text  # .53 days


@pytest.mark.parametrize("width", [80, 150])
def test_the_longest_option_name_shows_whether_it_is_a_call(width):
    assert "BTC_USDC-27MAR26-100000-C" in drawn(with_options(options=[option("BTC_USDC-27MAR26-100000-C")]), width, 40)


@pytest.mark.parametrize(("more", "code"), [({"modelled": True}, "33"), ({"greeks_off": True}, "31")])
def test_an_option_with_doubtful_greeks_has_another_colour(more, code):
    text = painted(with_options(options=[option("BTC-27MAR26-100000-C", **more)]))
    assert f"\x1b[{code}mBTC-27MAR26-100000-C" in text


def test_the_tightest_limit_comes_first():
    text = drawn(CROWDED, 80, 24)
    assert "BTC-99" in text
    assert "BTC-11" not in text


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"mode": "halted", "mode_why": "drawdown of 20 %"}, "halted because drawdown of 20 %"),
        ({"armed": False}, "observe: nothing is sent"),
        ({"draining": True}, "draining"),
        ({"recording": False}, "not recording"),
        ({"contracts_closed": 12}, "12 contracts closed by the venue"),
        ({"contracts_regridded": 1}, "1 contracts with other lots or ticks"),
        ({"limits": [dict(limit="var", subject="book", used=0.012, allowed=0.02)]}, "1.2 % / 2 %"),
        ({"healthy": False, "unhealthy": ["no decision for 9 s"]}, "unhealthy: no decision for 9 s"),
        ({"clips": CROWDED["clips"]}, "net delta:BTC: cut 500,000 to 400,000 because max_net_usd"),
        ({"orders": []}, "working orders: none"),
        ({"factors": [factor("delta:ETH", 5.0, None, None)]}, "no target"),
    ],
)
def test_what_is_out_of_the_ordinary_is_said(more, says):
    assert says not in drawn(status())
    assert says in drawn(status(**more))


def test_what_is_not_known_is_a_dash_and_no_error():
    unknown = dict.fromkeys(("bid", "ask", "mark", "index", "notional_usd"), None)
    told = status(
        equity_usd=None, drawdown=None, decision_age_s=None, latency={},
        instruments=[instrument("BTC-PERPETUAL", **unknown)],
        limits=[dict(limit="drawdown", subject="book", used=None, allowed=0.2)],
        factors=[factor("delta:BTC", None, None, None)],
    )  # fmt: skip
    text = drawn(told)
    assert "equity - USD" in text
    assert " nan" not in text
    assert "None" not in text
    assert "100 %" in text  # a limit that cannot be measured counts as used up, as it does for the guards


def test_a_stale_price_looks_different():
    stale = painted(status(instruments=[instrument("BTC-PERPETUAL", fresh=False)]))
    assert "○" in stale
    assert "○" not in painted(status())


@pytest.mark.parametrize("words", ["\x1b[2J", "two\nlines", "back\rspace", "\u202ereversed", "[bold]loud[/]"])
def test_what_a_venue_says_moves_no_cursor_and_is_no_markup(words):
    text = drawn(status(recent_notes=[dict(utc_ns=NOW_NS, event="feed.refused", text=words)], mode_why=words))
    assert words not in text or words == "[bold]loud[/]"
    assert "\x1b" not in text
    assert words != "[bold]loud[/]" or words in text
    assert text.count("\n") == drawn(status()).count("\n")


def test_the_newest_of_orders_and_fills_is_on_top():
    text = drawn(status())
    assert text.index("filled buy 102") < text.index("filled buy 101") < text.index("create sell 7,691")


def test_an_old_picture_says_of_when_it_is_and_nothing_that_may_have_ended():
    old = drawn(status(), notice="gone for 4 s")
    assert "as it was at 11:06:40 UTC" in old and "equity 974,823" in old
    for word in ("healthy", "armed", " normal "):
        assert word in drawn(status()) and word not in old


def test_an_old_picture_is_dimmed_below_its_notice():
    old = painted(status(), notice="no answer for 4 s")
    assert _CODES.sub("", old).startswith("no answer for 4 s")
    assert "\x1b[32m" in painted(status())
    assert "\x1b[32m" not in old


def marker(held: float, wanted: float, band: float, width: int = 41) -> tuple[int, list[int]]:
    """Where the held exposure is drawn, and the cells inside the band."""
    bar = "".join(text for text, _ in band_bar(held, wanted, band, width))
    assert len(bar) == width
    return bar.index("●"), [i for i, cell in enumerate(bar) if cell == "━"]


def test_the_marker_lies_where_the_exposure_lies_against_its_band():
    at, band = marker(250.0, 250.0, 10.0)
    assert at == 20
    assert marker(255.0, 250.0, 10.0)[0] in range(21, max(band) + 1)
    at, band = marker(262.0, 250.0, 10.0)
    assert at > max(band)
    at, band = marker(-9_000.0, 250.0, 10.0)
    assert at < min(band, default=20)
    marker(1.0, 1.0, 0.0)


@pytest.mark.parametrize(("used", "style"), [(0.5, "green"), (0.7, "yellow"), (0.9, "red"), (7.0, "red")])
def test_a_limit_turns_yellow_at_70_and_red_at_90_percent(used, style):
    bar = limit_bar(used, 20)
    assert bar[0] == ("█" * min(round(20 * used), 20), style)
    assert sum(len(text) for text, _ in bar) == 20


@pytest.mark.parametrize("text", ["short", "much too long for it", "日本語日本語日本語", "ünïcödé ünïcödé"])
@pytest.mark.parametrize("width", [1, 2, 7, 12])
def test_text_fills_its_cells_exactly(text, width):
    assert cell_len(fit(text, width)) == width
    assert cell_len(fit(text, width, right=True)) == width


def test_a_picture_costs_the_loop_little():
    started = time.process_time()
    for _ in range(20):
        painted(CROWDED, 200, 60)
    assert (time.process_time() - started) / 20 < 0.015  # 2 ms where nothing else runs


# --- the terminal ----------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal that stdout is, and what was written to it."""

    def __init__(self, monkeypatch) -> None:
        self.master, self.slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.before = termios.tcgetattr(self.slave)
        self.written = ""
        name = os.ttyname(self.slave)
        monkeypatch.setattr("dea_daemon.shell.screen.terminal", lambda: name)  # pytest has the real stdout

    def read(self) -> str:
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65_536):
                self.written += data.decode()
        return self.written

    def close(self) -> None:
        for fd in (self.slave, self.master):
            with contextlib.suppress(OSError):  # a test may have closed it
                os.close(fd)


@pytest.fixture
def terminal(monkeypatch):
    made = Terminal(monkeypatch)
    yield made
    made.close()


def given_back(terminal: Terminal) -> bool:
    return "\x1b[?1049l" in terminal.read() and termios.tcgetattr(terminal.slave) == terminal.before


async def test_the_view_draws_and_gives_the_terminal_back(terminal):
    async with TerminalView(status, "demo"):
        await asyncio.sleep(0.1)
        assert "equity 974,823" in terminal.read()
        assert not termios.tcgetattr(terminal.slave)[3] & termios.ECHO
    assert given_back(terminal)


async def test_what_crashes_inside_the_view_finds_the_terminal_given_back(terminal):
    async def crash() -> None:
        async with TerminalView(status, "demo"):
            await asyncio.sleep(0.05)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await crash()
    assert given_back(terminal)


async def test_a_picture_that_fails_ends_the_view_and_nothing_else(terminal):
    ended = asyncio.Event()
    async with TerminalView(lambda: status(factors=[{}]), "demo", ended.set):
        await asyncio.wait_for(ended.wait(), 2)
        assert given_back(terminal)


async def test_a_terminal_that_goes_away_ends_the_view_and_nothing_else(terminal):
    ended = asyncio.Event()
    async with TerminalView(status, "demo", ended.set):
        await asyncio.sleep(0.05)
        os.close(terminal.master)
        await asyncio.wait_for(ended.wait(), 2)


async def test_without_a_terminal_the_view_ends_at_once(monkeypatch):
    monkeypatch.setattr("sys.stdout", StringIO())
    ended = asyncio.Event()
    async with TerminalView(status, "demo", ended.set):
        await asyncio.wait_for(ended.wait(), 2)


def test_a_terminal_that_takes_nothing_holds_nobody_up(terminal):
    screen = Screen()
    started = time.monotonic()
    for seq in range(2_000):  # nobody reads: 20 MB would not fit
        screen.paint(Picture(status(seq=seq), "demo"))
        if seq % 40 == 0:
            screen._shown = []  # every line anew
    screen.close()
    assert time.monotonic() - started < 15
    terminal.read()


def test_only_lines_that_changed_are_written_again(terminal):
    screen = Screen()
    screen.paint(Picture(status(), "demo"))
    first = len(terminal.read())
    screen.paint(Picture(status(), "demo"))
    assert len(terminal.read()) == first
    screen.paint(Picture(status(seq=813), "demo"))
    assert 0 < len(terminal.read()) - first < first / 4
    screen.close()
