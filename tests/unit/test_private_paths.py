"""Paths in a bundle's texts are cut to their last part."""

import pytest

from harness.reporting.export.private_paths import as_written, without_paths, without_paths_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weights from /scratch/ann/kd/teacher.pth, of May", "weights from teacher.pth, of May"),
        ("(~ann/kd/teacher.pth)", "(teacher.pth)"),
        ("see ~/kd/notes.", "see notes."),
        ("`$HOME/kd/x.pt`", "`x.pt`"),
        ("file:///home/ann/x.pt", "x.pt"),
        ("ann@node7.org:/data/x.pt", "x.pt"),
        ("ssh://ann@node7.org/data/x.pt", "x.pt"),
        (r"C:\Users\ann\x.pt and \\host\share\y.pt", "x.pt and y.pt"),
        ("D:/kd/x.pt", "x.pt"),
        ("DATA=/home/ann/data", "DATA=data"),
        ("in /home/ann/", "in home"),
        ("in /Users/ann", "in home"),
        ("'/home/ann/My Drive/kd/x.pt', \"C:\\Users\\ann b\\x.pt\"", "'x.pt', \"x.pt\""),
        (r"C:\Users\ann b\kd\x.pt, /home/ann/My\ Drive/x.pt, \Users\ann\x", "x.pt, x.pt, x"),
        (r"${HOME}/kd/x %USERPROFILE%\kd\x $env:HOME\kd\x $HOME\kd\x ~\kd\x", "x x x x x"),
        ("ann@node7:kd/x.pt s3://ann/kd/x.pt rsync://ann@node7/kd/x.pt", "x.pt x.pt x.pt"),
        ("“/data/ann/x” «/data/ann/x» →/data/ann/x… \u200b/data/ann/x", "“x” «x» →x… \u200bx"),
        ("**/data/ann/x**, #/data/ann/x @/data/ann/x, -I/home/ann/x, ../../home/ann/x", "**x**, #x x, x, x"),
        ("路径/home/ann/模型.pt，路径：/data/ann/x", "模型.pt，路径：x"),
        ("/u/ann /home2/ann /gpfs/users/ann", "home home home"),
        ("http://localhost:8888/tree/x.ipynb https://node7/kd/x https://a:b@x.org/y", "x.ipynb x https://x.org/y"),
        # what is no path stays
        ("https://example.org/a/b.pth", "https://example.org/a/b.pth"),
        ("lr 1/2, a / b, and/or, ~30 epochs, ~, //", "lr 1/2, a / b, and/or, ~30 epochs, ~, //"),
        ("benchmarks/recipes/cifar.yaml", "benchmarks/recipes/cifar.yaml"),
        ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k"),
    ],
)
def test_paths_in_text(text: str, expected: str) -> None:
    assert without_paths(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "top-1/top-5 of kd/fitnets, N/A, w/o KD, CE/KD, 2026/11/29, KD (Hinton)/FitNets/CRD, α/β, +/-0.3",
        "~1/3 of ~10/20, 5 /6, 10 images /s, $5/GPU, $x/y$, T:/4, 1:/2, time:~2/3, lr:~0.1, </b>, */, (/), ~/",
        r"\alpha/\beta, \\, $\alpha$, C:\, a\b",
        "http://arxiv.org/abs/1503.02531, HTTPS://X.org/a, git+https://github.com/x/y, see:https://x.org/a",
        "https://x.org/a,b/c;d?e=/f/g#/h, ftp://ftp.x.org/pub/a, doi:10.1000/xyz",
    ],
)
def test_a_text_with_slashes_that_are_of_no_path_stays(text: str) -> None:
    assert without_paths(text) == text


def test_paths_with_spaces_are_known_from_the_data_and_comments_are_text() -> None:
    data = {"a": "/home/ann/My Drive/x.pt", "b": ["/home/ann/My Drive"], "note": "/data/x is where"}
    text = (
        "# of /home/ann/exp\na: /home/ann/My Drive/x.pt # ann@h:/q/z\nb: [/home/ann/My Drive]\nnote: /data/x is where\n"
    )
    assert as_written(text, data) == "# of exp\na: x.pt # z\nb: [My Drive]\nnote: x is where\n"
    assert as_written("# see https://x.org/data/y, b/data\na: /data\n", {"a": "/data"}).splitlines() == [
        "# see https://x.org/data/y, b/data",
        "a: data",
    ]
    assert without_paths_in(data) == {"a": "x.pt", "b": ["My Drive"], "note": "x is where"}
