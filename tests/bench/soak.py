"""`python -m tests.bench.soak --minutes 10`: a demo as a child, its memory and descriptors as the system sees them.

Exit 1 if the daemon's resident memory grows by more than 5 MB from the second minute to the end. Linux only.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

SAMPLE_S = 5.0
WARM_UP_S = 60.0
GROWTH_MAX_MB = 5.0
ENDS = 12  # samples in the first and the last median: a minute


class Sample(NamedTuple):
    """One process at one moment: seconds since the start, resident MB, open descriptors, threads."""

    at_s: float
    rss_mb: float
    descriptors: int
    threads: int


def sample(pid: int, at_s: float) -> Sample:
    process = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    rss_kb = int(status["VmRSS"].split()[0])
    return Sample(at_s, rss_kb / 1024, len(list((process / "fd").iterdir())), int(status["Threads"]))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def watch(seconds: float, seed: int, every_s: float = SAMPLE_S) -> dict[str, list[Sample]]:
    """Samples of daemon and venue while a demo of so many seconds trades."""
    command = [sys.executable, "-m", "dea_daemon.cli", "demo", "--json", "--seconds", str(seconds), "--seed", str(seed)]
    seen: dict[str, list[Sample]] = {"daemon": [], "venue": []}
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    began_s = time.monotonic()
    try:
        while (at_s := time.monotonic() - began_s) < seconds and demo.poll() is None:
            time.sleep(min(every_s, seconds))
            named = [("daemon", demo.pid), *(("venue", child) for child in children(demo.pid)[:1])]
            for name, pid in named:
                seen[name].append(sample(pid, at_s))
        demo.wait(60)
    finally:
        demo.terminate()
        demo.wait(60)
    return seen


def tell(name: str, samples: list[Sample]) -> float:
    """Print one process's figures. Its growth, MB: median of the last minute less that of the second one."""
    warm = [s for s in samples if s.at_s >= WARM_UP_S] or samples
    first, last = warm[:ENDS], warm[-ENDS:]
    start_mb, end_mb = (statistics.median(s.rss_mb for s in part) for part in (first, last))
    slope = 0.0
    if len(warm) > 1:
        slope, _ = statistics.linear_regression([s.at_s for s in warm], [s.rss_mb for s in warm])
    print(
        f"{name:>7}: {start_mb:.1f} MB to {end_mb:.1f} MB, {slope * 3_600:+.1f} MB/hour; "
        f"descriptors {first[0].descriptors} to {last[-1].descriptors}, at most "
        f"{max(s.descriptors for s in samples)}; threads {first[0].threads} to {last[-1].threads}"
    )
    return end_mb - start_mb


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=7)
    chosen = options.parse_args()
    seen = watch(chosen.minutes * 60, chosen.seed)
    if not all(seen.values()):
        print("the demo did not run long enough to be sampled")
        return 1
    growth_mb = {name: tell(name, samples) for name, samples in seen.items()}
    return int(growth_mb["daemon"] > GROWTH_MAX_MB)


if __name__ == "__main__":
    sys.exit(main())
