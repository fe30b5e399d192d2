"""All rows, and the faults that have none."""

from tests.mutants import account, data, orders, process
from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (*orders.MUTANTS, *data.MUTANTS, *account.MUTANTS, *process.MUTANTS)

FAULTS = range(1, 51)
WITHOUT = {
    32: "positions have no mode at the venue it trades at: there is nothing to defend, and nothing to remove",
}
