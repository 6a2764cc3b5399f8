"""Download one file whose hash is known, or leave nothing behind."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from pyfacelat.errors import DownloadError
from pyfacelat.files import whole_file

_CHUNK = 1 << 20
_MOST_REDIRECTS = 5
_LEAST_RATE = 1000  # bytes a second, on average over a timeout's length

Progress = Callable[[int, int], None]


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str,
    max_bytes: int,
    timeout: float = 30.0,
    schemes: tuple[str, ...] = ("https",),
    progress: Progress | None = None,
) -> None:
    """Fetch `url` into `path`, which appears only when all of it is there and right.

    A download that fails starts afresh the next time.

    Args:
        url: where it is.
        path: where it goes; folders are made. A file that is there is replaced.
        sha256: digest in hexadecimal, or how it begins.
        max_bytes: a longer answer is refused, before it is read where the server says its length.
        timeout: seconds without an answer, or with fewer than 1000 bytes a second, that are too
            many.
        schemes: what addresses, and those they lead to, may begin with.
        progress: called with bytes so far, and in all (0 if unknown).

    Raises:
        DownloadError: no answer, a wrong one, or too slow; the message names address and rule.
        OSError: `path` cannot be written.
    """
    target = Path(path)
    opener = urllib.request.build_opener(_Redirects(schemes))
    _check_scheme(url, schemes)
    target.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": "pyfacelat"})
    with whole_file(target) as file:
        try:
            with opener.open(request, timeout=timeout) as answer:
                digest = _copy(answer, file, url, max_bytes, timeout, progress)
        except urllib.error.HTTPError as error:
            raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from None
        except TimeoutError:
            raise DownloadError(f"{url}: no answer for {timeout:g} s") from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
            slow = isinstance(getattr(error, "reason", None), TimeoutError)
            why = f"no answer for {timeout:g} s" if slow else getattr(error, "reason", error)
            raise DownloadError(f"{url}: {why}") from None
        if not digest.startswith(sha256.lower()):
            raise DownloadError(
                f"{url}: its SHA-256 begins with {digest[: len(sha256)]}, expected {sha256}"
            )


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _copy(
    answer: Any,
    file: IO[bytes],
    url: str,
    max_bytes: int,
    timeout: float,
    progress: Progress | None,
) -> str:
    """Copy the body; returns its SHA-256."""
    length = answer.headers.get("Content-Length")
    total = int(length) if length is not None and length.isdigit() else 0
    if total > max_bytes:
        raise DownloadError(f"{url}: {total} bytes, expected at most {max_bytes}")
    digest, done = hashlib.sha256(), 0
    since, before = time.monotonic(), 0
    # read1 hands over what has arrived: a server that trickles is seen to be slow.
    while chunk := answer.read1(_CHUNK):
        done += len(chunk)
        if done > max_bytes:
            raise DownloadError(f"{url}: goes on past {max_bytes} bytes")
        digest.update(chunk)
        file.write(chunk)
        if progress is not None:
            progress(done, total)
        elapsed = time.monotonic() - since
        if elapsed > timeout:
            if done - before < _LEAST_RATE * elapsed:
                raise DownloadError(
                    f"{url}: {done - before} bytes in {elapsed:.0f} s; too slow, try again later"
                )
            since, before = time.monotonic(), done
    if done < total:
        raise DownloadError(f"{url}: ends after {done} of {total} bytes")
    return digest.hexdigest()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow a few redirects, and none to another kind of address."""

    max_redirections = _MOST_REDIRECTS
    max_repeats = 2

    def __init__(self, schemes: tuple[str, ...]) -> None:
        self._schemes = schemes

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """The request that follows, or DownloadError."""
        _check_scheme(newurl, self._schemes, through=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str, schemes: tuple[str, ...], through: str = "") -> None:
    if urlsplit(url).scheme not in schemes:
        where = f"{through}: leads to {url}" if through else url
        raise DownloadError(f"{where}: expected an address that begins with {', '.join(schemes)}")
