"""``python -m benchmarks.perf [NAME ...]``: all benches or the named ones, each in a process of its own."""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.perf.measurement import ROOT, say
from harness.errors import EXIT_BAD_INPUT, unknown

BENCHES = (
    "pack_throughput",
    "kd_step",
    "method_cost",
    "method_terms",
    "kept_logits",
    "two_views",
    "ds_ddp",
    "busy_core",
    "startup",
    "plan_10k",
    "rerun_10k",
    "store_100k",
    "augment",
    "randaugment",
    "imagenet_loader",
    "imagenet_loader_256",
    "imagenet_growth",
    "crop_decode",
    "seeded_decoder",
    "seeded_decoder_512",
    "coco_loader",
    "slurm_scale",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.perf",
        description="Measure the harness's speed. Each bench compares two things in one run and prints one line "
        "of JSON on stdout: their ratio, its target and the measurements. Progress goes to stderr. Exit code: 0 all "
        "were measured, 1 some could not be, 2 wrong input.",
        epilog=f"benches: {', '.join(BENCHES)}. {Path(__file__).with_name('README.md').relative_to(ROOT)} explains "
        "them, and docs/environment.md the variables that they read.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benches to run (default: all)")
    names = parser.parse_args().names or BENCHES
    for name in names:
        if name not in BENCHES:
            print(f"error: {unknown('bench', name, BENCHES)}", file=sys.stderr)
            return EXIT_BAD_INPUT
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
