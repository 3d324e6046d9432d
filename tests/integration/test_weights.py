"""Teachers' weights by address and by name: fetched once, checked, stored by content, never fetched by a job."""

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save, save_file

from harness.errors import UserError
from harness.models.zoo import build_model
from harness.store import download, weight_cache
from harness.store.download import TRIES
from harness.store.weight_cache import WeightCache
from harness.training.job import run_job
from harness.training.job_order import JobOrder
from tests.support.bench import ENVIRONMENT, SWEEP, Bench, until
from tests.support.cli import CommandResult, process, run_command
from tests.support.https_server import Answer, Site, head, site
from tests.support.warm_python import executable

CONTENT = bytes(range(256)) * 12_000  # 3 MB: several blocks
PUBLISHED = "timm:test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as running_site:
        yield running_site


@pytest.fixture
def web(_site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(download, "WAITS_S", (0,) * (download.TRIES - 1))
    _site.answers.clear()
    _site.requests.clear()
    for key, value in _site.environment.items():
        monkeypatch.setenv(key, value)
        monkeypatch.setitem(ENVIRONMENT, key, value)
    return _site


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KD_DATA", raising=False)
    monkeypatch.delitem(ENVIRONMENT, "KD_DATA", raising=False)
    return tmp_path


def sweep_file(weights: dict[str, Any]) -> str:
    """Write a sweep whose dataset is missing, so that it stops once it is planned and its weights are fetched."""
    pair = {"teacher": "resnet20", "student": "resnet8", "teacher_weights": weights}
    sweep = {"dataset": "cifar100", "recipe": "cifar100_short", "methods": ["kd"], "pairs": [pair], "seeds": 1}
    Path("s.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    return "s.yaml"


def sweep(weights: dict[str, Any], *args: object) -> CommandResult:
    return run_command("sweep", sweep_file(weights), *args)


def last_line(result: CommandResult) -> str:
    assert result.code == 2 and "Traceback" not in result.err, result
    return result.err.splitlines()[-1].removeprefix("error: ")


PLANNED = "dataset 'cifar100' needs data"


def stored_files(home: Path) -> list[str]:
    """Return every file of the weight store except its locks."""
    root = home / "results/weights"
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix != ".lock")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def teacher(name: str, seed: int = 0) -> bytes:
    torch.manual_seed(seed)
    return save(dict(build_model(name, 10, 1).state_dict()))


def test_a_sweep_fetches_its_teacher_once_and_its_jobs_never(bench: Bench, web: Site) -> None:
    content = teacher("digits_net_w8")
    url = web.put("/t.safetensors", content)
    bench.sweep = {
        **SWEEP,
        "recipe": {"base": "digits_quick", "epochs": 1},
        "methods": ["kd"],
        "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4", "teacher_weights": {"url": url}}],
        "seeds": 1,
    }
    for name in ("sweep", "status"):
        result = bench.run(name, *["--plan"] * (name == "sweep"))
        assert result.returncode == 2 and f"pairs.0.teacher_weights: weights {url}: not fetched yet" in result.stderr
    assert not web.requests and not bench.store.root.exists()

    result = bench.run("sweep")
    assert result.returncode == 0 and f"fetched {url}: " in result.stderr, result
    assert web.requests == [("/t.safetensors", None)]
    file = bench.store.weights / "sha256" / f"{sha(content)}.safetensors"
    assert file.read_bytes() == content
    run_ids = {cell.run_id for cell in bench.cells().values()}
    for run_id in run_ids:
        assert bench.row(run_id)["teacher_sha256"] == sha(content) and 0 < bench.row(run_id)["teacher_top1"] < 50

    web.answers.clear()
    assert bench.run("sweep").returncode == 0, "nothing is left to do, so nothing is fetched"
    assert bench.run("sweep", "--plan").returncode == 0 and len(web.requests) == 1
    (bench.folder / "beside.safetensors").write_bytes(content)
    bench.sweep["pairs"][0]["teacher_weights"] = {"file": "beside.safetensors"}
    assert {cell.run_id for cell in bench.cells().values()} == run_ids, "where weights are from is no science"


def test_weights_by_name_come_from_the_librarys_place(home: Path, web: Site) -> None:
    content = teacher("timm:test_resnet")
    web.put("/timm/test_resnet.r160_in1k/resolve/main/model.safetensors", content)
    args = ["--dataset", "digits", "--model", "timm:test_resnet", "--weights", PUBLISHED, "--json"]
    result = process("-m", "harness.evaluate", *args, cwd=home)
    document = json.loads(result.out)
    assert document["sha256"] == sha(content) and document["weights"].startswith(str(home / "results/weights/sha256"))
    program = (
        "import sys; from harness.console.app import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'timm'} & set(sys.modules), 'heavy'\n"
    )
    result = process("-c", program, "sweep", sweep_file({"name": PUBLISHED}), "--plan", "--no-check", cwd=home)
    assert result.code == 0 and result.err == "" and len(web.requests) == 1, result


def test_torchvisions_names_state_the_hash_they_have(home: Path, web: Site) -> None:
    web.put("/models/resnet34-b627a593.pth", b"something else")
    weights = {"name": "torchvision:ResNet34_Weights.IMAGENET1K_V1"}
    url = "https://download.pytorch.org/models/resnet34-b627a593.pth"
    expected = f"weights {url}: sha256 is {sha(b'something else')}, its name states b627a593..."
    assert sweep(weights).error == f"s.yaml:8: pairs.0.teacher_weights: {expected}"
    result = run_command("evaluate", "--dataset", "digits", "--model", "digits_net_w4", "--weights", weights["name"])
    assert result.error == expected
    assert stored_files(home) == []


def test_another_hash_than_stated_leaves_nothing(bench: Bench, web: Site) -> None:
    url = web.put("/t.pth", CONTENT)
    weights = {"url": url, "sha256": "ab" * 32}
    bench.sweep = {**SWEEP, "methods": ["kd"], "pairs": [{**SWEEP["pairs"][0]}]}
    bench.sweep["pairs"][0]["teacher_weights"] = weights
    assert bench.run("sweep", "--plan").returncode == 0 and not web.requests, "the stated hash is enough for a plan"
    result = bench.run("sweep")
    assert result.returncode == 2
    expected = f"error: sweep.yaml: weights {url}: sha256 is {sha(CONTENT)}, expected {'ab' * 32}"
    assert result.stderr.splitlines()[-1] == expected
    assert stored_files(bench.folder) == [] and [p.name for p in bench.store.root.iterdir()] == ["weights"]


def test_twenty_sweeps_at_once_fetch_once(home: Path, web: Site) -> None:
    url, all_wait = web.put("/t.pth", CONTENT), threading.Event()
    whole = web.answers["/t.pth"]

    def late(to: BaseHTTPRequestHandler) -> None:
        all_wait.wait(60)
        whole(to)

    web.answers["/t.pth"] = late
    args = [executable(), "-m", "harness.sweep", sweep_file({"url": url}), "--no-check"]
    logs = [home / f"{i}.log" for i in range(20)]
    started = [subprocess.Popen(args, env=ENVIRONMENT, stderr=log.open("w")) for log in logs]
    until(lambda: sum("waiting for it" in log.read_text() for log in logs) == 19)
    all_wait.set()
    assert [p.wait(120) for p in started] == [2] * 20
    texts = [log.read_text() for log in logs]
    assert len(web.requests) == 1
    assert all(text.splitlines()[-1].startswith(f"error: {PLANNED}") for text in texts), texts
    assert stored_files(home)[0] == f"sha256/{sha(CONTENT)}.pth" and len(stored_files(home)) == 2


def test_a_killed_download_leaves_no_file_and_the_next_one_works(home: Path, web: Site) -> None:
    url, half_sent, go_on = web.put("/t.pth", CONTENT), threading.Event(), threading.Event()
    whole = web.answers["/t.pth"]

    def half(to: BaseHTTPRequestHandler) -> None:
        head(to, 200, {"Content-Length": str(len(CONTENT))})
        to.wfile.write(CONTENT[: len(CONTENT) // 2])
        half_sent.set()
        go_on.wait(60)

    web.answers["/t.pth"] = half
    args = [executable(), "-m", "harness.sweep", sweep_file({"url": url}), "--no-check"]
    killed = subprocess.Popen(args, env=ENVIRONMENT, stderr=subprocess.PIPE)
    assert half_sent.wait(60)
    until(lambda: any((home / "results/weights/sha256").glob(".*.tmp")))
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    go_on.set()
    (partial,) = stored_files(home)
    assert partial.startswith("sha256/.") and partial.endswith(".tmp")
    assert "not fetched yet" in sweep({"url": url}, "--plan").error

    web.answers["/t.pth"] = whole
    assert last_line(sweep({"url": url})).startswith(PLANNED)
    assert stored_files(home)[0] == f"sha256/{sha(CONTENT)}.pth" and len(stored_files(home)) == 2, (
        "what the killed one left is gone"
    )


@pytest.mark.parametrize("what", ["the same", "another version", "no version"])
def test_a_broken_transfer_goes_on_if_the_file_is_the_same(home: Path, web: Site, what: str) -> None:
    other_content = CONTENT[::-1]
    cut = 2 << 20

    def breaks(to: BaseHTTPRequestHandler) -> None:
        first = len(web.requests) == 1
        etag = {} if what == "no version" else {"ETag": '"1"' if first or what == "the same" else '"2"'}
        if first:
            head(to, 200, {"Content-Length": str(len(CONTENT)), **etag})
            to.wfile.write(CONTENT[:cut])
        elif what == "the same":
            assert to.headers["If-Range"] == '"1"'
            head(to, 206, {"Content-Length": str(len(CONTENT) - cut), **etag})
            to.wfile.write(CONTENT[cut:])
        else:
            head(to, 200, {"Content-Length": str(len(other_content)), **etag})
            to.wfile.write(other_content)

    web.answers["/t.pth"] = breaks
    assert last_line(sweep({"url": web.url("/t.pth")})).startswith(PLANNED)
    assert [part for _, part in web.requests] == [None, None if what == "no version" else f"bytes={cut}-"]
    expected = CONTENT if what == "the same" else other_content
    assert (home / "results/weights" / stored_files(home)[0]).read_bytes() == expected
    assert stored_files(home)[0] == f"sha256/{sha(expected)}.pth"


def test_what_always_breaks_is_given_up(home: Path, web: Site) -> None:
    def breaks(to: BaseHTTPRequestHandler) -> None:
        head(to, 200, {"Content-Length": "1000"})
        to.wfile.write(b"x" * 10)

    web.answers["/t.pth"] = breaks
    expected = f"cannot be downloaded: the connection was closed after 10 of 1,000 bytes, {TRIES} times"
    assert sweep({"url": web.url("/t.pth")}).error.endswith(expected)
    assert len(web.requests) == TRIES and stored_files(home) == []


def test_addresses_that_give_nothing(home: Path, web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    web.answers["/moved.pth"] = lambda to: head(to, 302, {"Location": web.put("/there", CONTENT)})
    web.answers["/open.pth"] = lambda to: head(to, 302, {"Location": "http://localhost/t.pth"})
    web.answers["/endless.pth"] = lambda to: head(to, 200, {})
    assert last_line(sweep({"url": web.url("/moved.pth")})).startswith(PLANNED)
    before = stored_files(home)
    assert before[0] == f"sha256/{sha(CONTENT)}.pth"
    where = "s.yaml:8: pairs.0.teacher_weights: weights "
    for path, message in {
        "/none.pth": "the server answers 404 Not Found",
        "/open.pth": "redirects to http://localhost/t.pth, which is not https",
        "/endless.pth": "the server does not state the file's length, so its end would not be noticed",
    }.items():
        url = web.url(path)
        assert sweep({"url": url}).error == f"{where}{url}: {message}"
    monkeypatch.delenv("SSL_CERT_FILE")
    url = web.put("/t.pth", b"")
    assert "certificate verify failed" in sweep({"url": url}).error
    for url in ("https://localhost:1/t.pth", "https://a..b/t.pth"):
        error = sweep({"url": url}).error
        assert error.startswith(f"{where}{url}: cannot be reached: ") and error.endswith("give it as `file`"), error
    assert stored_files(home) == before


def _endless(to: BaseHTTPRequestHandler) -> None:
    head(to, 200, {"Transfer-Encoding": "chunked"})
    while True:
        to.wfile.write(b"3e8\r\n%b\r\n" % (b"x" * 1000))


def _slow(to: BaseHTTPRequestHandler) -> None:
    head(to, 200, {"Content-Length": "1000"})
    while True:
        to.wfile.write(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda to: head(to, 200, {"Content-Length": "100001"}), "larger than 0 GB"),
        (_endless, "larger than 0 GB"),
        (_slow, f"cannot be downloaded: it comes at less than 10 kB/s, {TRIES} times"),
        (lambda to: head(to, 302, {"Location": to.path}), "the server answers 302 "),
        (lambda to: head(to, 206, {"Content-Length": "5"}), "cannot be downloaded: the server sends another part"),
        (lambda to: to.send_error(503), f"the server answers 503 Service Unavailable, {TRIES} times"),
    ],
    ids=["announced", "endless", "slow", "round in circles", "another part", "busy"],
)
def test_no_server_holds_a_download_up(
    tmp_path: Path, web: Site, answer: Answer, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MOST_BYTES", 100_000)
    monkeypatch.setattr(download, "_MINUTE", 0.1)
    web.answers["/t.pth"] = answer
    with pytest.raises(UserError) as e:
        download.download(web.url("/t.pth"), tmp_path / "t.pth")
    assert str(e.value).startswith(f"weights {web.url('/t.pth')}: {message}")
    assert (tmp_path / "t.pth").stat().st_size <= 200_000


def test_a_lost_connection_is_made_again(tmp_path: Path, web: Site) -> None:
    """Also several times in a row, and in the middle of the file."""
    whole, tries = b"0123456789" * 100, iter(range(9))

    def fails(to: BaseHTTPRequestHandler) -> None:
        if (number := next(tries)) == 1:
            head(to, 200, {"Content-Length": "1000"})
            to.wfile.write(whole[:10])
        elif number == TRIES - 1:
            head(to, 200, {"Content-Length": "1000"})
            to.wfile.write(whole)
        to.connection.close()

    web.answers["/t.pth"] = fails
    assert download.download(web.url("/t.pth"), tmp_path / "t.pth") == sha(whole)
    assert (tmp_path / "t.pth").read_bytes() == whole


def test_a_read_only_cache_is_read(tmp_path: Path, web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = WeightCache(tmp_path)
    sha256, path = cache.fetch(web.put("/t.pth", CONTENT))
    monkeypatch.setattr(weight_cache, "Lock", None)  # root writes into a folder that is read-only for others
    assert cache.fetch(web.url("/t.pth")) == (sha256, path)
    assert cache.fetch("https://localhost:1/moved.pth", sha256) == (sha256, path)


def test_a_filled_store_needs_no_network(home: Path, web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores share KD_WEIGHTS. A file put there under its hash is used, unless its content does not match."""
    monkeypatch.setenv("KD_WEIGHTS", "shared")
    file = home / "shared/sha256" / f"{sha(CONTENT)}.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    gone = "https://localhost:1/t.pth"
    args = ["--dataset", "digits", "--model", "digits_net_w4", "--weights"]
    state = teacher("digits_net_w4")
    url = web.put("/t.safetensors", state)
    for results in ("one", "two"):
        assert run_command("evaluate", *args, url, "--results", results, "--json").code == 0
    assert len(web.requests) == 1 and not (home / "one").exists()
    damaged = home / "shared/sha256" / f"{sha(state)}.safetensors"
    damaged.write_bytes(b"damaged")
    assert run_command("evaluate", *args, url, "--json").code == 0
    assert len(web.requests) == 2 and damaged.read_bytes() == state

    pair = {"teacher": "digits_net_w8", "student": "digits_net_w4"}
    text = {"dataset": "digits", "recipe": "digits_quick", "methods": ["kd"], "seeds": 1}
    from harness.planning.plan import plan_sweep

    for content, matches in ((CONTENT, True), (b"none", False)):
        pair["teacher_weights"] = {"url": gone, "sha256": sha(content)}  # type: ignore[assignment]
        Path("s.yaml").write_text(yaml.safe_dump({**text, "pairs": [pair]}))
        planned = plan_sweep(Path("s.yaml"), Path("results"))
        if matches:
            (entry,) = planned.weights_files(planned.plan.runs).values()
            assert entry.file == str(file)
        else:
            error = last_line(run_command("sweep", "s.yaml"))
            assert error.startswith(f"s.yaml: weights {gone}: cannot be reached: "), error


def test_a_change_since_the_download_is_reported(home: Path, web: Site) -> None:
    url = web.put("/t.pth", CONTENT)
    assert last_line(sweep({"url": url})).startswith(PLANNED)
    (home / "results/weights/sha256" / f"{sha(CONTENT)}.pth").unlink()
    web.put("/t.pth", b"new")
    error = run_command("evaluate", "--dataset", "digits", "--model", "digits_net_w4", "--weights", url).error
    changed = f"sha256 is {sha(b'new')}, expected {sha(CONTENT)}; it has changed since it was first fetched"
    assert error == f"weights {url}: {changed}"


WRONG = {
    "two sources": (
        {"file": "f", "url": "https://h/t.pth"},
        ": expected one of file, url and name; found file and url",
    ),
    "no source": ({"sha256": "ab" * 32}, ": expected one of file, url and name; found none of them"),
    "open http": ({"url": "http://h/t.pth"}, ".url: expected an https address, https://HOST/PATH"),
    "no host": ({"url": "https:///t.pth"}, ".url: expected an https address, https://HOST/PATH"),
    "a control character": ({"url": "https://h/\x1bt.pth"}, ".url: expected an https address, https://HOST/PATH"),
    "a port beyond all": ({"url": "https://h:99999/t.pth"}, ".url: Port out of range 0-65535"),
    "a password": ({"url": "https://me:key@h/t.pth"}, ".url: expected an address with no user, password or port 0"),
    "a page": (
        {"url": "https://h/t.html"},
        ".url: expected the address of a file that ends in .pth, .pt, .bin, .safetensors",
    ),
    "no library": ({"name": "resnet34"}, ".name: expected torchvision:MODEL_Weights.VERSION or timm:MODEL.TAG"),
    "a version that is none": (
        {"name": "torchvision:ResNet34_Weights.IMAGENET1K_V3"},
        ".name: torchvision has no loadable weights 'ResNet34_Weights.IMAGENET1K_V3'; "
        "nearest: torchvision:ResNet34_Weights.IMAGENET1K_V1, ",
    ),
    "a tag that is none": (
        {"name": "timm:mobilenetv1_100.ra4_e3600_r225_in1k"},
        ".name: timm has no loadable weights 'mobilenetv1_100.ra4_e3600_r225_in1k'; "
        "nearest: timm:mobilenetv1_100.ra4_e3600_r224_in1k, ",
    ),
}


@pytest.mark.parametrize("given, message", WRONG.values(), ids=WRONG)
def test_wrong_weights_in_a_sweep_file(home: Path, given: dict[str, Any], message: str) -> None:
    error = sweep(given, "--plan").error
    assert error.partition("pairs.0.teacher_weights")[2].startswith(message), error
    assert [p.name for p in home.iterdir()] == ["s.yaml"]


def test_wrong_names_and_addresses_at_evaluate(home: Path) -> None:
    def evaluate(weights: object, *more: str) -> str:
        asked = ("evaluate", "--dataset", "digits", "--model", "digits_net_w4", "--weights", weights)
        return run_command(*asked, *more).error

    assert evaluate("ftp://h/t.pth").startswith("--weights ftp://h/t.pth: expected an https address")
    assert evaluate("timm:resnet18.none").startswith("--weights timm:resnet18.none: timm has no loadable weights")
    assert evaluate("t.pth") == "--weights t.pth: no such file"
    assert evaluate("t.pth", "--mean", "0.5", "--std", "0").startswith("--std 0: must be at least ")
    assert evaluate("t.pth", "--key", "") == "--key : expected text, found ''"
    assert list(home.iterdir()) == []
    (home / "teacher.pth").touch()
    assert evaluate("teachr.pth") == "--weights teachr.pth: no such file; did you mean 'teacher.pth'?"
    nowhere = home / "none" / "t.pth"
    assert evaluate(nowhere).endswith(f"t.pth: no such file; there is no folder {nowhere.parent} either")
    given = {"file": str(nowhere)}
    assert sweep(given, "--plan").error.endswith(f"t.pth: no such file; there is no folder {nowhere.parent} either")


def test_a_teacher_with_its_own_mean_and_std_is_measured_stated_and_recorded_by_them(home: Path) -> None:
    torch.manual_seed(11)
    save_file(build_model("digits_net_w8", 10, in_channels=1).state_dict(), "own.safetensors")
    args = ["--dataset", "digits", "--model", "digits_net_w8", "--weights", "own.safetensors"]
    plain, own = (
        json.loads(run_command("evaluate", *args, "--json", *more).out)
        for more in ([], ["--mean", "0.9", "--std", "0.1"])
    )
    assert plain["top1"] != own["top1"] and (own["mean"], own["std"]) == ([0.9], [0.1])
    given = {"file": "own.safetensors", "mean": 0.9, "std": 0.1, "top1": round(own["top1"], 2)}
    teachers = {"digits_net_w4": given, "digits_net_w8": {"file": "own.safetensors", "top1": round(plain["top1"], 2)}}
    pairs = [{"teacher": "digits_net_w8", "student": s, "teacher_weights": w} for s, w in teachers.items()]
    recipe = {"base": "digits_quick", "epochs": 1, "teacher_top_k": 10}
    bench = Bench(home, {**SWEEP, "methods": ["kd"], "recipe": recipe, "pairs": pairs, "seeds": 1})
    planned = bench.plan()
    for pack in planned.plan.packs:
        for run_id in pack.run_ids:
            bench.store.write_science(run_id, planned.plan.runs[run_id].science)
        weights = planned.weights_files(pack.run_ids)
        run_job(JobOrder(str(bench.store.root.resolve()), pack.run_ids, None, weights, 1))
    rows = [bench.row(run_id) for run_id in planned.plan.runs]
    assert [row["teacher_top1"] for row in rows] == [own["top1"], plain["top1"]]
    assert rows[0]["teacher_sha256"] == rows[1]["teacher_sha256"] == own["sha256"]
    assert [json.loads(row["science"])["teacher"].get("mean") for row in rows] == [[0.9], None]
    assert len(list((bench.store.root / "logits").iterdir())) == 2, "they share no cached logits"
    table = bench.call("report").out
    assert "by another normalisation than the students' (digits's): digits_net_w8 (mean 0.9 and std 0.1)." in table
