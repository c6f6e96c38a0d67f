"""Fetches one URL into a file that may be begun already: goes on, tries again, and gives up with a reason."""

import contextlib
import email.utils
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from typing import IO, Any, Callable, Dict, NamedTuple, NoReturn, Optional
from urllib.parse import urlsplit, urlunsplit

from dagster_slurm_components.data.host.layout import FULL
from dagster_slurm_components.environments.host.store import request_for, without_login
from dagster_slurm_components.environments.host.tools import Problem
from dagster_slurm_components.hosts.satellite.files import read_json, remove_tree, write_json

_TRIES = 5
"""In a row in which not a byte more came."""
_TIMEOUT = 60.0
_LONGEST_PAUSE = 120.0
_PIECE = 64 * 1024
_BUSY = (408, 429, 500, 502, 503, 504)
_CUT = (OSError, http.client.HTTPException, ssl.CertificateError)  # URLError is an OSError
_WHAT_TO_DO = {
    401: ("refused", "it wants a login: name one for this host in ~/.netrc of the machine that fetches"),
    403: ("refused", "it refuses: does the login in ~/.netrc of the machine that fetches have the right?"),
    404: ("not_found", "there is no such file: look at the address"),
    407: ("refused", "the proxy wants a login: https_proxy and http_proxy may hold one"),
    410: ("not_found", "the file is gone: look for another address"),
}

Facts = Dict[str, Any]


class Wanted(NamedTuple):
    """A URL, and the file to which it goes; ``known`` has the ``etag`` and ``modified`` of what is here.

    ``rate`` is in bytes a second, ``most`` in bytes; ``expect`` is told how many bytes it will be, and may refuse.
    """

    url: str
    part: bytes
    known: Facts
    rate: Optional[int]
    most: Optional[int]
    expect: Callable[[int], None]
    sleep: Callable[[float], None]


class _CutError(OSError):
    """What came is not what was announced: tried again."""


def shown(url: str) -> str:
    """Return a URL as people may see it: without a login, and without a query, which may hold a token."""
    parts = urlsplit(without_login(url))
    return urlunsplit(parts._replace(query="..." if parts.query else "", fragment=""))


def download(wanted: Wanted) -> Optional[Facts]:
    """Fetch a URL; return its ``etag`` and ``modified``, or None if it is as known. A failure leaves what may go on."""
    tries, most = 0, 0
    with open(wanted.part, "ab", buffering=0) as file:
        while True:
            pause = min(2.0**tries, _LONGEST_PAUSE)
            try:
                return _try(wanted, file)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in _BUSY:
                    _give_up(wanted, error.code)
                why = "it answers %d" % error.code
                pause = min(_asked_pause(error.headers.get("Retry-After"), pause), _LONGEST_PAUSE)
            except _CUT as error:
                if isinstance(error, http.client.InvalidURL):  # whose text is that address
                    _fail(wanted, "bad_url", "it leads to an address that is none")
                why = str(getattr(error, "reason", error)) or type(error).__name__
                if "CERTIFICATE_VERIFY_FAILED" in why or isinstance(error, ssl.CertificateError):
                    _fail(wanted, "certificate", why + "; SSL_CERT_FILE names other certificates to trust")
                if getattr(error, "errno", None) in FULL:
                    forget(wanted.part)
                    raise
            size = os.fstat(file.fileno()).st_size
            tries, most = (0 if size > most else tries), max(size, most)
            tries += 1
            if tries >= _TRIES:
                _fail(wanted, "unreachable", "%s, %d times" % (why, tries))
            wanted.sleep(pause)


def forget(part: bytes) -> None:
    """Remove what has come, and what is noted of it."""
    remove_tree(part)
    remove_tree(part + b".json")


def _try(wanted: Wanted, file: IO[bytes]) -> Optional[Facts]:
    notes = wanted.part + b".json"
    begun, facts = os.fstat(file.fileno()).st_size, read_json(notes) or {}
    request = request_for(wanted.url)
    for header, value in (("If-None-Match", "etag"), ("If-Modified-Since", "modified")):
        if wanted.known.get(value):
            request.add_header(header, wanted.known[value])
    validator = facts.get("etag") or facts.get("modified")
    if begun and validator and not validator.startswith("W/"):
        request.add_header("Range", "bytes=%d-" % begun)
        request.add_header("If-Range", validator)
    try:
        # One opener for each: the proxies are those that the environment names now.
        response = urllib.request.build_opener().open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 304 and wanted.known:
            error.close()
            return None
        if error.code == 416 and begun:
            error.close()
            if error.headers.get("Content-Range") == "bytes */%d" % begun:  # it was whole
                return dict(facts)
            file.truncate(0)
            raise _CutError("it can't go on where the part ends")
        raise
    with response:
        now = {"etag": response.headers.get("ETag"), "modified": response.headers.get("Last-Modified")}
        if response.status == 206:
            goes_on = (response.headers.get("Content-Range") or "").startswith("bytes %d-" % begun)
            if not goes_on or (now["etag"] or facts.get("etag")) != facts.get("etag"):
                file.truncate(0)
                raise _CutError("it goes on with another content")
        else:
            file.truncate(0)
            begun = 0
            write_json(notes, now)
            facts = now
        length = response.headers.get("Content-Length") or ""
        total = begun + int(length) if length.isdecimal() else None
        wanted.expect(total or 0)
        size = begun + _copy(wanted, response, file, begun)
        if total is not None and size != total:
            raise _CutError("the connection ended after %d of %d bytes" % (size, total))
    return facts


def _copy(wanted: Wanted, response: IO[bytes], file: IO[bytes], begun: int) -> int:
    piece = _PIECE if wanted.rate is None else max(1, min(_PIECE, wanted.rate // 4))
    started, come = time.monotonic(), 0
    for chunk in iter(lambda: response.read(piece), b""):
        come += len(chunk)
        if wanted.most is not None and begun + come > wanted.most:
            forget(wanted.part)
            _fail(wanted, "too_large", "it is larger than %d bytes" % wanted.most)
        rest = memoryview(chunk)
        while rest:
            rest = rest[file.write(rest) :]
        if wanted.rate is not None:
            wanted.sleep(max(0.0, come / wanted.rate - (time.monotonic() - started)))
    return come


def _asked_pause(text: Optional[str], default: float) -> float:
    """Return the seconds that a ``Retry-After`` asks for: a number, or a time."""
    text = (text or "").strip()
    if text.isdecimal():
        return float(text)
    date = email.utils.parsedate_tz(text)
    with contextlib.suppress(ValueError, OverflowError):  # of no such day
        return default if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())
    return default


def _give_up(wanted: Wanted, status: int) -> NoReturn:
    code, advice = _WHAT_TO_DO.get(status, ("refused", "it can't be fetched so"))
    _fail(wanted, code, "%s (%d)" % (advice, status))


def _fail(wanted: Wanted, code: str, why: str) -> NoReturn:
    raise Problem(code, "%s: %s" % (shown(wanted.url), why))
