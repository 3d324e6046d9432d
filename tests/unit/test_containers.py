"""The commands around a job's Python that start a container. Neither runtime is installed where this is tested."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from slurm.containers import Container, check_mountable, mounted_paths
from slurm.profiles import Profile
from slurm.submission import Submission

MOUNTS = ["/images", "/fast/$USER/x:/x:ro"]


def script(folder: Path, **profile: Any) -> list[str]:
    """Return the lines of a job's script. Its weights are in the folder `w`, its code and store in `r`."""
    if shutil.which("srun") is None:
        pytest.skip("srun is not installed")
    for name in ("w", "r/code", "r/jobs"):
        (folder / name).mkdir(parents=True)
    (folder / "w/t.pth").touch()
    profile = {"container": {"image": "/i/kd 1.sif", "mounts": MOUNTS}, **profile}
    submission = Submission(
        name="kd",
        folder=folder / "r/jobs/kd",
        tasks=1,
        profile=(stated := Profile.model_validate(profile)),
        resources=stated.resources,
        search=[str(folder / "r/code")],
        read=[str(folder / "r"), str(folder / "w/t.pth")],
        dependency="",
        max_parallel=1,
        restarts=1,
    )
    return submission.script().splitlines()


def words(lines: list[str]) -> list[str]:
    (line,) = [line for line in lines if "submitit.core._submit" in line]
    return shlex.split(line)


def test_apptainer(tmp_path: Path) -> None:
    lines = script(tmp_path, resources={"gpus_per_node": 1, "nodes": 2}, stage={"data": "/scratch/$USER/kd"})
    line = words(lines)
    start, python = line.index("apptainer"), line.index("env")
    store, weights, code = (str(tmp_path / name) for name in ("r", "w", "r/code"))
    temporary = "${TMPDIR:-/tmp}"
    paths = [(temporary, temporary), ("/scratch/$USER/kd",) * 2, ("/images",) * 2, (store, store), (weights, weights)]
    binds = [":".join(pair) for pair in paths] + ["/fast/$USER/x:/x:ro"]
    given = line[start + 3 : line.index("--pwd")]
    assert line[start : start + 3] == ["apptainer", "exec", "--nv"]
    assert sorted(given[1::2]) == sorted(binds) and set(given[::2]) == {"--bind"}
    assert line[line.index("--pwd") : python] == ["--pwd", code, "/i/kd 1.sif"]
    assert line[python : python + 3] == ["env", f"PYTHONPATH={code}", "python3"]
    assert 'srun --nodes=2 --ntasks-per-node=1 mkdir -p "/scratch/$USER/kd" || exit 1' in lines


def test_pyxis_is_options_of_srun(tmp_path: Path) -> None:
    """Text alone: no SLURM here has the plugin."""
    container = {"image": "nvcr.io#nvidia/pytorch:25.01-py3", "runtime": "pyxis", "mounts": "/images"}
    line = words(script(tmp_path, container=container, python="/opt/venv/bin/python"))
    store, weights, code = (str(tmp_path / name) for name in ("r", "w", "r/code"))
    mounts = [f"{path}:{path}" for path in ("${TMPDIR:-/tmp}", "/images", store, weights)]
    assert line[line.index("--export=ALL") + 1 :][:7] == [
        "--container-image=nvcr.io#nvidia/pytorch:25.01-py3",
        f"--container-mounts={','.join(mounts)}",
        "--container-mount-home",
        f"--container-workdir={code}",
        "env",
        f"PYTHONPATH={code}",
        "/opt/venv/bin/python",
    ]


def test_what_the_user_mounts_wins_and_outer_folders_come_first() -> None:
    container = Container(image="/i.sif", mounts=("/elsewhere:/data", "/data/sub", "/a b$HOME"))
    line = container.words(["/data", "/z"], [], "/z", gpus=False)
    assert shlex.split(line)[3::2][:5] == [
        "${TMPDIR:-/tmp}:${TMPDIR:-/tmp}",
        "/a b$HOME:/a b$HOME",
        "/elsewhere:/data",
        "/data/sub:/data/sub",
        "/z:/z",
    ]
    assert "--nv" not in line and '"/a b$HOME":' in line


def test_only_outermost_folders_that_are_there_are_mounted(tmp_path: Path) -> None:
    (tmp_path / "store/code").mkdir(parents=True)
    (tmp_path / "a.pth").touch()
    store = str(tmp_path / "store")
    assert mounted_paths(store, [], [f"{store}/code", "/not/there"], store) == [store]
    assert mounted_paths(store, [str(tmp_path / "a.pth")], [], store) == [str(tmp_path)]
    with pytest.raises(UserError, match="a container cannot be given a path with ',' in it"):
        check_mountable([store, "/a,b"])
