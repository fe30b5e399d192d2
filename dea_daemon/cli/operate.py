"""Commands for a daemon that runs: they speak over its control socket."""
