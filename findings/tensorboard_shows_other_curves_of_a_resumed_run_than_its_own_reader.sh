#!/usr/bin/env bash
# tensorboard 2.21.0 with tensorboard-data-server 0.7.2: the page and the package's own Python reader disagree about a run that was resumed.
# A training logs steps 0 to 9, is killed, and goes on from its checkpoint of step 5 in a new event file of the same folder, to step 7.
# EventAccumulator, from which scripts and exporters read curves, has 13 points, with steps 0 to 9 and then 5, 6, 7: the lost part is still there.
# The page as it starts by default (the data server reads) has 8 points: what came before and is not earlier than a new step is dropped, so the
# interrupted training's steps 8 and 9 are gone, although no new ones replace them. The page with --load_fast=false has the 13 points.
# A mark of the new start, which purge_step of SummaryWriter writes, makes the reader drop them too; the page with --load_fast=false does not.
# Seen on Python 3.11, linux x86_64: reader, page, page with --load_fast=false: 13, 8, 13; with the mark 8, 8, 13.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorboard==2.21.0 tensorboard-data-server==0.7.2 numpy==2.4.6 'setuptools<81'
seen="$(cd "$folder" && "$folder/venv/bin/python" -W ignore - 2> "$folder/errors" <<'PYTHON'
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


def write(folder, name, steps, base, mark):
    writer = EventFileWriter(folder, filename_suffix=name)
    if mark:
        writer.add_event(Event(step=steps[0], session_log=SessionLog(status=SessionLog.START)))
    for step in steps:
        value = Summary.Value(tag="top1", simple_value=base + step)
        writer.add_event(Event(step=step, wall_time=1e9 + base + step, summary=Summary(value=[value])))
    writer.close()


def page(folder, fast):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["tensorboard", "--logdir", folder, "--host", "127.0.0.1", "--port", str(port), f"--load_fast={fast}"]
    server = subprocess.Popen([os.path.join(os.path.dirname(sys.executable), command[0]), *command[1:]],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run=.&tag=top1"
    try:
        for _ in range(240):
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(address) as answer:
                    points = json.load(answer)
            except OSError:
                continue
            if points and points[-1][2] == 107:
                return len(points)
    finally:
        server.terminate()
        server.wait()


for mark in (False, True):
    folder = os.path.abspath(f"run-{mark}")
    write(folder, ".first", range(10), 0, False)
    time.sleep(1.1)  # the files' names have seconds
    write(folder, ".resumed", range(5, 8), 100, mark)
    reader = EventAccumulator(folder)
    reader.Reload()
    print(len(reader.Scalars("top1")), page(folder, "auto"), page(folder, "false"), sep=", ", end="; ")
PYTHON
)" || { cat "$folder/errors"; exit 1; }
echo "points of the resumed run in the reader, the page, the page without the data server; then with a mark: $seen"
test "$seen" = "13, 8, 13; 8, 8, 13; "
