"""Download of a file over https."""

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from harness.errors import UserError, one_line

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 30  # without a byte
TRIES = 5
OFFLINE = "where there is no internet, copy the file there and give it as `file`"


class _ConnectionLost(Exception):
    """A connection that was lost in the middle of the file."""


def download(url: str, to: Path) -> str:
    """Write the file at an https address to ``to`` and return its sha256.

    The system's certificates and proxies are used (SSL_CERT_FILE, HTTPS_PROXY). An interrupted transfer resumes where
    it stopped if the server confirms that the file is still the same, else it restarts; five tries at most.

    Raises:
        UserError: the file is unavailable, or a redirect leaves https.
        OSError: ``to`` cannot be written.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(Path(urlsplit(url).path).name)
    digest, version, problem = hashlib.sha256(), "", ""
    with to.open("wb") as f, bar:
        for _ in range(TRIES):
            with _open(url, f.tell(), version) as response:
                if response.status != http.client.PARTIAL_CONTENT:
                    f.seek(0)
                    f.truncate()
                    digest = hashlib.sha256()
                version = _version(response)
                size = None if response.length is None else f.tell() + response.length
                try:
                    while block := _read(response):
                        f.write(block)
                        digest.update(block)
                        bar.update(task, completed=f.tell(), total=size)
                    if size in (None, f.tell()):
                        return digest.hexdigest()
                    problem = f"the connection was closed after {f.tell():,} of {size:,} bytes"
                except _ConnectionLost as e:
                    problem = str(e)
    raise UserError(f"weights {url}: cannot be downloaded: {problem}, {TRIES} times")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https":
            raise UserError(f"weights {req.full_url}: redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int, version: str) -> http.client.HTTPResponse:
    """Request the file, or its rest from byte ``start`` on if it is still of this version."""
    request = urllib.request.Request(url)
    if start and version:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)
    try:
        response = urllib.request.build_opener(_HttpsOnly).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as e:
        raise UserError(f"weights {url}: the server answers {e.code} {one_line(e.reason, 200)}") from None
    except (OSError, http.client.HTTPException, ValueError) as e:
        cause = e.reason if isinstance(e, urllib.error.URLError) else e
        raise UserError(f"weights {url}: cannot be reached: {one_line(cause, 200)}; {OFFLINE}") from None
    assert isinstance(response, http.client.HTTPResponse)  # other schemes never come here
    if response.length is None and not response.chunked:
        response.close()
        raise UserError(f"weights {url}: the server does not state the file's length, so its end would not be noticed")
    return response


def _version(response: http.client.HTTPResponse) -> str:
    """Return the value for If-Range (RFC 9110, 13.1.5): a strong ETag, else the time of the last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as e:
        raise _ConnectionLost(one_line(e, 200)) from None
