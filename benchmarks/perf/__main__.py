"""``python -m benchmarks.perf [NAME ...]``: all benches or the named ones, each in a process of its own."""

import argparse
import difflib
import subprocess
import sys
from pathlib import Path

from benchmarks.perf.measurement import ROOT, say

BENCHES = (
    "pack_throughput",
    "kd_step",
    "method_cost",
    "kept_logits",
    "ds_ddp",
    "startup",
    "plan_10k",
    "rerun_10k",
    "store_100k",
    "augment",
    "imagenet_loader",
    "imagenet_loader_256",
    "seeded_decoder",
    "coco_loader",
    "slurm_scale",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.perf",
        description="Each bench measures two things in one run and prints one line of JSON on stdout: "
        "their ratio, its target, and what it was made of. Progress goes to stderr.",
        epilog=f"benches: {', '.join(BENCHES)}; see {Path(__file__).with_name('README.md').relative_to(ROOT)}",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benches to run (default: all)")
    names = parser.parse_args().names or BENCHES
    for name in names:
        if name not in BENCHES:
            near = difflib.get_close_matches(name, BENCHES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            print(f"error: no bench named {name!r}; {hint}there are: {', '.join(BENCHES)}", file=sys.stderr)
            return 2
    failed = []
    for name in names:
        say(f"{name} ...")
        if subprocess.run([sys.executable, "-m", f"benchmarks.perf.{name}"], cwd=ROOT).returncode:
            failed.append(name)
    if failed:
        say(f"could not measure: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
