"""The frame of the torture: it counts outcomes, and an exit code of 1 says that something was lost."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from tests.torture import Outcome, __main__


@pytest.mark.parametrize(("lost", "code"), [("", 0), ("a record", 1)])
def test_what_is_lost_is_counted_and_decides_the_exit_code(
    lost: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trials(folder: Path, random: Random) -> Iterator[Outcome]:
        assert folder.is_dir()
        yield Outcome("noticed")
        yield Outcome("healed")
        yield Outcome("noticed", lost)

    monkeypatch.setitem(sys.modules, "tests.torture.kills", SimpleNamespace(trials=trials))
    assert __main__.main(["kills", "--seconds", "60"]) == code
    result = json.loads(capsys.readouterr().out)
    assert result["tried"] == 3 and result["healed"] == 1 and result["lost"] == code
    assert result["what"] == [lost] * code


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["kils"])
    assert "unknown part 'kils'; valid: kills, flips" in capsys.readouterr().err
