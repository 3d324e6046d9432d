"""Stage `tests`: the tests that need a GPU, `pytest -m gpu`; each result is a finding as soon as it is known."""

import re
import subprocess
import sys
import time

from benchmarks.gpu.stage_order import StageOrder

NAME = "tests"
_RESULT = re.compile(r"^(tests/gpu/\S+?::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b")


def main() -> None:
    order = StageOrder.from_command_line()
    command = [sys.executable, "-u", "-m", "pytest", "-m", "gpu", "-v", "-p", "no:cacheprovider", "-o", "addopts="]
    if not order.smoke:
        command.append("--durations=5")
    began = time.time()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if match := _RESULT.match(line):
                order.findings.add(NAME, "test", test=match[1], result=match[2].lower())
    seconds = round(time.time() - began, 1)
    order.findings.add(NAME, "suite", exit_code=process.returncode, seconds=seconds)


if __name__ == "__main__":
    main()
