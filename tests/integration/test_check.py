"""The check before training, through the commands: nothing starts that would fail at its first step."""

import json
from pathlib import Path

from safetensors.torch import save_file

from harness.models.zoo import build_model
from tests.support.bench import SWEEP, Bench


def test_no_queue_is_entered_for_a_typo(bench: Bench) -> None:
    bench.sweep = {
        **SWEEP,
        "dataset": {"name": "digits", "train_subset": 70},
        "recipe": {"base": "digits_quick", "epochs": 1, "batch_size": 23},
        "methods": {"fitnets": {"params": {"tap": "stage7"}}, "at": {}, "reviewkd": {}, "kd": {}},
    }
    for options in (["--cluster", "loopback", "--detach"], []):
        result = bench.run("sweep", "--check", *options)
        assert result.returncode == 2 and not result.stdout
        message, tap, one_image = result.stderr.splitlines()[-3:]
        assert message.startswith("error: sweep.yaml: 2 problems found before training, so nothing was started (--no-")
        assert tap.startswith("error: digits_net_w8 > digits_net_w4: fitnets: ValueError: no tap named 'stage7'; ")
        assert one_image.startswith(
            "error: digits_net_w8 > digits_net_w4: reviewkd: a batch of 1 image, as 70 images in "
        )
        assert one_image.endswith("; batch_size: 24 leaves none")
        assert [path.name for path in bench.folder.iterdir()] == ["sweep.yaml"]


def test_given_weights_are_loaded_where_a_sweep_is_planned(bench: Bench) -> None:
    wrong, right = bench.folder / "wrong.safetensors", bench.folder / "right.safetensors"
    for file, model in ((wrong, "digits_net_w4"), (right, "digits_net_w8")):
        save_file(build_model(model, 10, in_channels=1).state_dict(), file)
    for file in (wrong, right):
        pair = {**SWEEP["pairs"][0], "teacher_weights": {"file": str(file)}}
        bench.sweep = {**SWEEP, "methods": {"student": {}, "kd": {}, "at": {}}, "pairs": [pair]}
        result = bench.run("sweep", "--check", "--plan")
        assert not bench.store.root.exists()
        if file == wrong:
            assert result.returncode == 2 and not result.stdout
            assert f"\nerror: digits_net_w8 > digits_net_w4: weights {file}: " in result.stderr
    assert result.returncode == 0, result.stderr


def test_a_sweep_that_passes_is_checked_once(bench: Bench) -> None:
    bench.sweep = {**SWEEP, "methods": {"student": {}}, "seeds": [0], "recipe": {"base": "digits_quick", "epochs": 1}}
    assert bench.run("sweep", "--check").returncode == 0
    (note,) = bench.store.checks.iterdir()
    assert json.loads(Path(note).read_text())["run"] == "digits_net_w8 > digits_net_w4 / student / seed 0"
