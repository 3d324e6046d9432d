"""The leaderboard as one HTML file that needs no network and runs only its own script.

Text from the store reaches the page as JSON, which the script shows with textContent, or through the template, which
escapes it. Figures are images, which run no script. The content security policy allows the one script and the one
style sheet by their hashes.
"""

import base64
import gzip
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.reporting.leaderboard.board import Board
from harness.reporting.leaderboard.run_details import NEWEST, WHOLE

_HERE = Path(__file__).parent
_SCRIPTS = ("data", "table", "filters", "detail", "curves", "compare", "failures")  # page.NAME.js, before page.js


def html(board: Board) -> str:
    """Render the page. The same board gives the same bytes."""
    environment = Environment(autoescape=True, loader=FileSystemLoader(_HERE), undefined=StrictUndefined)
    environment.filters["base64"] = _base64
    script = Markup("").join(_asset(name) for name in (*(f"page.{name}.js" for name in _SCRIPTS), "page.js"))
    style = _asset("page.css")
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; base-uri 'none'"
    return environment.get_template("page.html").render(
        board=board,
        policy=policy,
        script=script,
        style=style,
        overview=_json(board.overview),
        chunks=[_base64(gzip.compress(_dumps(chunk).encode(), mtime=0)) for chunk in board.chunks],
        whole=WHOLE,
        newest=NEWEST,
    )


def _json(value: Any) -> Markup:
    """Return JSON that cannot end its script element, whatever text its strings hold."""
    return Markup(_dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@cache
def _asset(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"
