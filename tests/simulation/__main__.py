"""`python -m tests.simulation SEED [--seconds 45] [--storm 1] [--options]`: one history, told whole."""

import argparse
import sys
import traceback

from tests.simulation.world import World


def main() -> int:
    """Exit code 1 where the history breaks a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seed", type=int)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--storm", type=float, default=1.0)
    parser.add_argument("--options", action="store_true")
    asked = parser.parse_args()
    world = World(asked.seed, storm=asked.storm, options=asked.options)
    broken = ""
    try:
        world.run(asked.seconds)
        world.settle()
    except Exception:  # noqa: BLE001 whatever it was, the story comes first
        broken = traceback.format_exc()
    sys.stdout.write("\n".join([*world.log, broken or "all well"]) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
