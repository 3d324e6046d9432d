"""Download of a file over https."""

import hashlib
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from harness.errors import UserError, one_line, printable

BLOCK_BYTES = 1 << 20
MOST_BYTES = 20_000_000_000  # of a file: several times the largest weights of torchvision and timm
TIMEOUT_S = 30  # without a byte
SLOWEST = 10_000  # bytes a second, over each minute: a server could keep a download for ever with a byte now and then
TRIES = 5
WAITS_S = (1, 2, 4, 8)  # before the tries after the first
_MINUTE = 60
_LASTING = (ssl.SSLCertVerificationError, socket.gaierror, ValueError)  # a wrong or unknown address
_PASSING = (429, 500, 502, 503, 504)  # answers of a server that another try may find well
OFFLINE = "where there is no internet, copy the file there and give it as `file`"


class _ConnectionLost(Exception):
    """A connection that was lost in the middle of the file, or that could not be made."""


def download(url: str, to: Path) -> str:
    """Write the file at an https address to ``to`` and return its sha256.

    The system's certificates and proxies are used (SSL_CERT_FILE, HTTPS_PROXY). An interrupted transfer resumes where
    it stopped if the server confirms that the file is still the same, else it restarts; five tries at most, of
    connections too.

    Raises:
        UserError: the file is unavailable or larger than 20 GB, comes too slowly, or a redirect leaves https.
        OSError: ``to`` cannot be written.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    # Without redirecting, which rich does by reading commands in what others print meanwhile.
    bar = Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal,
        redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
    task = bar.add_task(printable(Path(urlsplit(url).path).name))
    digest, version, problem = hashlib.sha256(), "", ""
    with to.open("wb") as f, bar:
        for wait in (0, *WAITS_S):
            time.sleep(wait)
            try:
                with _open(url, f.tell(), version) as response:
                    if response.status != http.client.PARTIAL_CONTENT:
                        f.seek(0)
                        f.truncate()
                        digest = hashlib.sha256()
                    version = _version(response)
                    size = None if response.length is None else f.tell() + response.length
                    _check_size(url, size)
                    for block in _blocks(response):
                        f.write(block)
                        digest.update(block)
                        _check_size(url, f.tell())
                        bar.update(task, completed=f.tell(), total=size)
                    if size in (None, f.tell()):
                        return digest.hexdigest()
                    problem = f"cannot be downloaded: the connection was closed after {f.tell():,} of {size:,} bytes"
            except _ConnectionLost as e:
                problem = str(e)
        advice = "" if f.tell() else f"; {OFFLINE}"
    raise UserError(f"weights {url}: {problem}, {TRIES} times{advice}")


def _check_size(url: str, size: int | None) -> None:
    if size is not None and size > MOST_BYTES:
        most = f"{MOST_BYTES / 1e9:,.0f} GB"
        advice = "fetch it by other means and give it as `file`"
        raise UserError(f"weights {url}: larger than {most}, the most that is downloaded; {advice}")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https":
            raise UserError(f"weights {req.full_url}: redirects to {newurl}, which is not https")
        fp.close()  # else urllib would read all that comes with the redirect
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int, version: str) -> http.client.HTTPResponse:
    """Request the file, or its rest from byte ``start`` on if it is still of this version.

    Raises:
        UserError: another try will give no more.
        _ConnectionLost: one may.
    """
    request = urllib.request.Request(url)
    if start and version:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)
    try:
        response = urllib.request.build_opener(_HttpsOnly).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as e:
        e.close()
        answer = f"the server answers {e.code} {one_line(e.reason, 200)}"
        if e.code in _PASSING:
            raise _ConnectionLost(answer) from None
        raise UserError(f"weights {url}: {answer}") from None
    except (OSError, http.client.HTTPException, ValueError) as e:
        cause = e.reason if isinstance(e, urllib.error.URLError) else e
        problem = f"cannot be reached: {one_line(cause, 200)}"
        if start == 0 and isinstance(cause, _LASTING):
            raise UserError(f"weights {url}: {problem}; {OFFLINE}") from None
        raise _ConnectionLost(problem) from None
    assert isinstance(response, http.client.HTTPResponse)  # other schemes never come here
    if response.status == http.client.PARTIAL_CONTENT and not _starts_at(response, start):
        response.close()
        raise _ConnectionLost("cannot be downloaded: the server sends another part of the file than the one asked for")
    if response.length is None and not response.chunked:
        response.close()
        raise UserError(f"weights {url}: the server does not state the file's length, so its end would not be noticed")
    return response


def _starts_at(response: http.client.HTTPResponse, start: int) -> bool:
    """Return whether a part of the file begins there, as far as the server says."""
    stated = response.headers.get("Content-Range", f"bytes {start}-")
    return start > 0 and stated.startswith(f"bytes {start}-")


def _version(response: http.client.HTTPResponse) -> str:
    """Return the value for If-Range (RFC 9110, 13.1.5): a strong ETag, else the time of the last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield what comes, as it comes.

    Raises:
        _ConnectionLost: nothing came for a while, or little in a minute.
    """
    began, received = time.monotonic(), 0
    try:
        while block := response.read1(BLOCK_BYTES):
            yield block
            received += len(block)
            if (passed := time.monotonic() - began) > _MINUTE:
                if received < SLOWEST * passed:
                    raise _ConnectionLost(f"cannot be downloaded: it comes at less than {SLOWEST / 1000:g} kB/s")
                began, received = time.monotonic(), 0
    except (OSError, http.client.HTTPException) as e:
        raise _ConnectionLost(f"cannot be downloaded: {one_line(e, 200)}") from None
