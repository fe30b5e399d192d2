"""Commands that read what a daemon wrote: ledger, statement, explanations."""
