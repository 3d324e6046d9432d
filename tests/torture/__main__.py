"""``python -m tests.torture``: run every part of the torture for its share of the time; what was tried, and lost.

    python -m tests.torture [--seconds 600] [--seed 0] [PART ...]

The exit code is 1 if anything was lost.
"""

import argparse
import importlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PARTS = ("kills", "flips", "errors", "users", "clocks")  # modules of this package


def run_part(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Run one part until its time is over, at least one trial of it, and return what it counted."""
    module = importlib.import_module(f"tests.torture.{name}")
    began, count, lost = time.monotonic(), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory(prefix=f"torture-{name}-") as folder:
        for outcome in module.trials(Path(folder), random.Random(f"{name} {seed}")):
            count["lost" if outcome.lost else outcome.word] += 1
            lost += [outcome.lost] if outcome.lost else []
            if time.monotonic() - began >= seconds:
                break
    took = round(time.monotonic() - began, 1)
    return {"part": name, "tried": count.total(), **count, "lost": len(lost), "what": lost[:20], "seconds": took}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.torture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=600, help="of all parts together")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other faults")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"unknown part {unknown[0]!r}; valid: {', '.join(PARTS)}")
    parts = options.parts or PARTS
    lost = 0
    for name in parts:
        print(f"{name}: {options.seconds / len(parts):.0f} s", file=sys.stderr, flush=True)
        result = run_part(name, options.seconds / len(parts), options.seed)
        lost += result["lost"]
        print(json.dumps(result), flush=True)
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
