"""The hedge goes where it is cheapest to hold: `tests.studies.funding_flip` in small: four times the funding, and
believed in minutes instead of hours."""

import numpy as np
import pytest

from dea_daemon.domain.modes import Mode
from tests.studies.funding_flip import BLIND_H, CARRY, COSTS, GROUPS, Flip

pytestmark = pytest.mark.timeout(300)  # some ten seconds of work, which a busy machine may stretch
OPENED, FLIP, BACK, TRIFLE, END = 0.1, 0.25, 0.75, 1.1, 1.35  # days
SCHEDULE = ((0.0, 20e-4), (FLIP, -20e-4), (BACK, 20e-4), (TRIFLE, -0.5e-4))
AN_HOUR = 60.0
CENT = 0.01


def lived(expected_hold_h):
    run = Flip(schedule=SCHEDULE, expected_hold_h=expected_hold_h, step_s=300, carry_half_life_h=0.1)
    run.live(END)
    return run


@pytest.fixture(scope="module")
def seeing():
    return lived(24.0)


@pytest.fixture(scope="module")
def blind():
    return lived(BLIND_H)


def futures(run, since, until):
    """[T] share of the hedge in dated futures."""
    story = run.story
    return story.share(GROUPS[2])[story.at(since) + 1 : story.at(until) + 1]


def test_while_a_short_perpetual_is_paid_the_hedge_is_sold_there(seeing):
    assert (futures(seeing, OPENED, FLIP - 0.01) < 0.05).all()


def test_when_it_has_to_pay_the_hedge_moves_to_dated_futures_within_the_hour_and_stays(seeing):
    assert seeing.story.moved_after_minutes(FLIP, BACK, futures=True) <= AN_HOUR
    assert (futures(seeing, FLIP + 0.05, BACK - 0.01) > 0.9).all()


def test_and_back_when_it_is_paid_again(seeing):
    assert seeing.story.moved_after_minutes(BACK, TRIFLE, futures=False) <= AN_HOUR
    assert (futures(seeing, BACK + 0.05, TRIFLE - 0.01) < 0.1).all()


def test_a_flip_worth_less_than_two_crossings_moves_nothing(seeing):
    """What is sold anew may go to another contract; nothing is bought back for it."""
    held = -np.array(seeing.story.position)[:, :2].sum(axis=1)
    at = seeing.story.at
    hedged_anyway = np.abs(np.diff(seeing.story.others)[at(TRIFLE) : at(END)]).sum()
    assert held[at(TRIFLE)] - held[at(END)] <= hedged_anyway
    assert (futures(seeing, TRIFLE, END) < 0.25).all()


def test_one_that_does_not_see_carry_stays_where_trading_is_cheapest(blind):
    assert (futures(blind, OPENED, END) < 0.1).all()


def test_what_moving_saves_is_more_than_what_it_costs(seeing, blind):
    saved = seeing.story.usd(CARRY, 0.0, END) - blind.story.usd(CARRY, 0.0, END)
    paid = blind.story.usd(COSTS, 0.0, END) - seeing.story.usd(COSTS, 0.0, END)
    assert saved > paid > 0.0


def test_all_the_while_delta_stays_within_its_band(seeing):
    story = seeing.story
    net, band = np.abs(story.net)[story.at(OPENED) :], np.array(story.band)[story.at(OPENED) :]
    assert (net <= band + 1.0).all()


def test_every_book_is_answered_for_and_the_money_agrees_to_the_cent(seeing, blind):
    for run in (seeing, blind):
        assert run.gap_usd() < CENT
        assert run.state.account.mode is Mode.NORMAL
        assert not run.result.notes["allocation.held"]
