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
        # what is no path stays
        ("https://example.org/a/b.pth", "https://example.org/a/b.pth"),
        ("lr 1/2, a / b, and/or, ~30 epochs, ~, //", "lr 1/2, a / b, and/or, ~30 epochs, ~, //"),
        ("benchmarks/recipes/cifar.yaml", "benchmarks/recipes/cifar.yaml"),
        ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k"),
    ],
)
def test_paths_in_text(text: str, expected: str) -> None:
    assert without_paths(text) == expected


def test_paths_with_spaces_are_known_from_the_data_and_comments_are_text() -> None:
    data = {"a": "/home/ann/My Drive/x.pt", "b": ["/home/ann/My Drive"], "note": "/data/x is where"}
    text = (
        "# of /home/ann/exp\na: /home/ann/My Drive/x.pt # ann@h:/q/z\nb: [/home/ann/My Drive]\nnote: /data/x is where\n"
    )
    assert as_written(text, data) == "# of exp\na: x.pt # z\nb: [My Drive]\nnote: x is where\n"
    assert without_paths_in(data) == {"a": "x.pt", "b": ["My Drive"], "note": "x is where"}
