"""``python -m benchmarks.gpu``: the GPU program's command line."""

import argparse
import hashlib
import shutil
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

BEGAN = time.time()
HERE = Path(__file__).parent
LEAST_MINUTES = 1.0
NEEDED = ("torch", "torchvision", "numpy", "pydantic", "submitit", "pyarrow", "safetensors", "yaml", "typer", "sklearn",
          "scipy", "jinja2", "pytest", "PIL")  # fmt: skip
LEFT = ("results.jsonl", "records.parquet", *(f"store.{i}" for i in range(4)))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="What the harness does on this GPU, in the minutes that you give it: the card's own limits (20 s), "
        "the GPU tests (90 s), images per second alone and in packs beside a plain PyTorch loop (120 s), training of a "
        "published row of CIFAR-100 (the rest), steps on large images (60 s). Every finding is written at once. Exit "
        "code: 0 all ran, 1 a test or a stage failed, 2 wrong input or no GPU.",
        epilog="docs/gpu.md says how to read what it leaves.",
    )
    parser.add_argument("--minutes", type=float, default=8, help="end before so many minutes are over (default: 8)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/gpu/out"), metavar="DIR",
        help="folder for what it leaves, at most eight files of at most 16 MB (default: build/gpu/out)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="data root: cifar-100-python/ or the mosaics of CIFAR-100 in any folders, weights/resnet56.pth, coco128/",
    )  # fmt: skip
    parser.add_argument(
        "--resume", type=Path, metavar="FOLDER", help="go on with what an earlier call left in FOLDER, which may be DIR"
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR",
        help="folder for the store in training and unpacked data (default: one in build/gpu for each --out)",
    )  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="run every stage small on a CPU, to test this program")
    options = parser.parse_args()
    if message := _mistake(options):
        return _refuse(message)
    from benchmarks.gpu.program import ROOT, Program  # not before: a package may be missing
    from benchmarks.gpu.stage_order import StageOrder
    from harness.errors import UserError

    out = options.out.resolve()
    mark = hashlib.sha256(str(out).encode()).hexdigest()[:8]
    work = (options.work or ROOT / "build" / "gpu" / f"work-{mark}").resolve()
    try:
        for folder in (out, work):
            folder.mkdir(parents=True, exist_ok=True)
        if options.resume and options.resume.resolve() != out:
            for name in LEFT:
                if (options.resume / name).exists():
                    shutil.copyfile(options.resume / name, out / name)
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}")
    data = options.data.resolve() if options.data else None
    order = StageOrder(out, work, data, BEGAN, BEGAN + 60 * options.minutes, options.smoke)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))  # the stage that runs saves what it has
    try:
        return Program(order, resumed=options.resume is not None).run()
    except UserError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _mistake(options: argparse.Namespace) -> str:
    """Return what is wrong with the options or this machine; "" if nothing is."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        return f"missing packages: {', '.join(missing)}; install them with: pip install -r {HERE / 'requirements.txt'}"
    least = 0 if options.smoke else LEAST_MINUTES
    if not least <= options.minutes < 10_000:
        return f"--minutes {options.minutes:g}: expected at least {least:g}"
    for option in ("data", "resume"):
        folder = getattr(options, option)
        if folder is not None and not folder.is_dir():
            return f"--{option} {folder}: no such folder"
    results = "results.jsonl"
    if options.resume and not (options.resume / results).exists():
        return f"--resume {options.resume}: no {results} in it; expected the --out folder of an earlier call"
    if options.out.exists() and not options.out.is_dir():
        return f"--out {options.out}: not a folder"
    is_resumed = options.resume is not None and options.resume.resolve() == options.out.resolve()
    if (options.out / results).exists() and not is_resumed:
        return (
            f"--out {options.out}: holds an earlier call's results; go on with --resume {options.out}, or name another"
        )
    if not options.smoke:
        import torch

        if not torch.cuda.is_available():
            return "this program needs a CUDA GPU, and torch finds none here (--smoke tests the program on a CPU)"
    return ""


if __name__ == "__main__":
    sys.exit(main())
