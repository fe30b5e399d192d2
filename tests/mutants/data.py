"""Faults 16 to 25: market data."""

from tests.mutants.mutant import Mutant

BOOKS = "tests/state/test_books.py"
ACCOUNT = "tests/state/test_account.py"
ENGINE = "tests/test_engine.py"
GUARDS = "tests/guards/test_limits.py"
OPTIONS = "tests/guards/test_options_guards.py"
SOCKETS = "tests/shell/test_sockets.py"
DEFENCES = "tests/state/test_defences.py"

MUTANTS = (
    Mutant(
        16,
        "a hole in the numbers of a book's changes is passed over",
        "dea_daemon/state/books.py",
        "if event.previous != last and not (self._fresh and event.first <= last + 1):",
        "if False:",
        (
            f"{BOOKS}::test_a_gap_makes_the_book_unusable_until_a_snapshot",
            f"{BOOKS}::test_a_dropped_delta_is_noticed_at_the_next_and_no_level_survives",
        ),
    ),
    Mutant(
        16,
        "a broken book is not asked for again",
        "dea_daemon/state/market.py",
        "            effects.commands.append(Resubscribe(row))\n",
        "            pass\n",
        (f"{DEFENCES}::test_a_book_that_broke_is_asked_for_at_once",),
    ),
    Mutant(
        17,
        "a book keeps its levels when its stream is gone",
        "dea_daemon/state/books.py",
        "        self.bids.clear()\n        self.asks.clear()\n        self._waiting.clear()\n",
        "        self._waiting.clear()\n",
        (
            f"{BOOKS}::test_a_dropped_delta_is_noticed_at_the_next_and_no_level_survives",
            f"{BOOKS}::test_a_closed_stream_takes_its_book_with_it",
        ),
    ),
    Mutant(
        17,
        "a book that was fetched for an earlier connection is taken",
        "dea_daemon/shell/sockets.py",
        "if self._connection is not connection:",
        "if False:",
        (f"{SOCKETS}::test_a_book_that_arrives_after_its_stream_is_gone_is_dropped",),
    ),
    Mutant(
        18,
        "a crossed book is a book like any",
        "dea_daemon/state/books.py",
        "return bool(bids and asks) and bids[-1] >= -asks[-1]",
        "return False",
        (f"{BOOKS}::test_a_crossed_snapshot_is_a_gap", f"{BOOKS}::test_a_delta_that_crosses_the_book_is_a_gap"),
    ),
    Mutant(
        18,
        "a price is made of one side of a book",
        "dea_daemon/execution/placement.py",
        "if not 0.0 < (far if crossing else near) < np.inf or bid >= ask:",
        "if not 0.0 < (far if crossing else near) < np.inf:",
        ("tests/execution/test_plan.py::test_without_a_two_sided_book_there_is_no_price",),
    ),
    Mutant(
        18,
        "a book with one side is fresh",
        "dea_daemon/state/market.py",
        "quoted = bidden & (self.ask > self.bid)\n",
        "quoted = bidden | (self.ask > 0)\n",
        (f"{DEFENCES}::test_an_emptied_side_stops_its_contract_alone",),
    ),
    Mutant(
        19,
        "age is no matter: what a contract last said is believed",
        "dea_daemon/state/market.py",
        "np.isfinite(self.mark) & self.recent(now_ns)\n",
        "np.isfinite(self.mark)\n",
        (f"{ENGINE}::test_stale_books_stop_orders_in_that_contract_alone",),
    ),
    Mutant(
        20,
        "a connection that has gone silent is kept",
        "dea_daemon/shell/sockets.py",
        "if unready or silent_ns > limits.idle_s * NS_PER_S:",
        "if unready:",
        (f"{SOCKETS}::test_a_half_open_connection_is_noticed_within_the_bound",),
    ),
    Mutant(
        20,
        "a connection that is never confirmed is kept",
        "dea_daemon/shell/sockets.py",
        "if unready or silent_ns > limits.idle_s * NS_PER_S:",
        "if silent_ns > limits.idle_s * NS_PER_S:",
        (f"{SOCKETS}::test_a_venue_that_never_confirms_is_left",),
    ),
    Mutant(
        21,
        "a change that was told before is applied again",
        "dea_daemon/state/books.py",
        "        if event.last <= last:\n",
        "        if False:\n",
        (f"{BOOKS}::test_duplicated_and_late_deltas_change_nothing",),
    ),
    Mutant(
        21,
        "changes that waited for a snapshot are applied as they came",
        "dea_daemon/state/books.py",
        "waiting = sorted(self._waiting, key=lambda delta: delta.last)",
        "waiting = list(self._waiting)",
        (f"{BOOKS}::test_any_order_of_deltas_before_a_snapshot_gives_the_clean_book",),
    ),
    Mutant(
        22,
        "a level's price may be no number",
        "dea_daemon/state/books.py",
        "                    if not 0.0 < price < _INF:\n                        return False\n",
        "",
        (f"{BOOKS}::test_a_number_that_is_none_is_a_gap",),
    ),
    Mutant(
        22,
        "a mark that is no price is taken for one",
        "dea_daemon/state/market.py",
        "self.mark[row] = event.mark_price if 0.0 < event.mark_price < np.inf else np.nan",
        "self.mark[row] = event.mark_price",
        (f"{DEFENCES}::test_a_mark_that_is_no_price_is_no_mark",),
    ),
    Mutant(
        22,
        "a limit that cannot be measured lets orders through",
        "dea_daemon/guards/admit.py",
        "if not (wanted <= allowed or wanted <= before or untold) and not excused:",
        "if wanted > allowed and wanted > before and not excused:",
        ("tests/guards/test_scenarios.py::test_what_cannot_be_valued_lets_nothing_grow",),
    ),
    Mutant(
        22,
        "equity measured by a false price becomes the peak",
        "dea_daemon/engine.py",
        "if not permit.doubted.any():  # a false price must not leave a peak nobody reached",
        "if True:",
        (f"{ACCOUNT}::test_a_false_index_trades_nothing_leaves_no_peak_and_no_mode_behind",),
    ),
    Mutant(
        23,
        "a contract whose mark left its own index is traded on",
        "dea_daemon/guards/conditions.py",
        "off = view.fresh & ~(inside & ~own)",
        "off = view.fresh & ~inside",
        (f"{GUARDS}::test_a_contract_that_diverged_from_its_index_is_not_increased",),
    ),
    Mutant(
        23,
        "a false mark of what is held is hedged in other contracts",
        "dea_daemon/guards/conditions.py",
        "false = (off & ((held & ~universe.option) | shared)) | (held & shared)",
        "false = off & False",
        (f"{ACCOUNT}::test_a_false_mark_of_what_is_held_is_not_hedged_in_other_contracts",),
    ),
    Mutant(
        24,
        "guessed Greeks of what is held hedge like the venue's own",
        "dea_daemon/guards/conditions.py",
        "return _whole_underlying(view, (view.position_lots != 0) & (view.modelled | view.greeks_off))",
        "return _whole_underlying(view, view.modelled & False)",
        (f"{OPTIONS}::test_guessed_greeks_of_a_held_option_let_its_underlying_only_shrink_and_no_other",),
    ),
    Mutant(
        25,
        "a message that cannot be read ends the socket",
        "dea_daemon/feeds/deribit.py",
        "except (msgspec.MsgspecError, VenueError, InvariantViolation, RecursionError) as error:",
        "except VenueError as error:",
        ("tests/feeds/test_deribit_codec.py::test_what_cannot_be_read_is_one_refusal_with_a_bounded_excerpt",),
        raises="msgspec.",
    ),
    Mutant(
        25,
        "a message that cannot be read is passed over without being counted",
        "dea_daemon/shell/sockets.py",
        "                self.health.refused += 1\n",
        "                pass\n",
        (f"{SOCKETS}::test_garbage_is_counted_and_the_rest_goes_on",),
    ),
)
