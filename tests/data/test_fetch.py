"""What a URL names comes once, whole and right, from a server on loopback that has every fault."""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import os
import shutil
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from files_server import FilesServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import PATIENCE

from dagster_slurm_components.data.host.content import tree_key
from dagster_slurm_components.data.host.download import shown
from dagster_slurm_components.data.host.fetch import fetch
from dagster_slurm_components.data.host.layout import Layout
from dagster_slurm_components.environments.host.tools import Problem
from dagster_slurm_components.hosts.satellite.locks import acquire

CONTENT = bytes(range(256)) * 2000


@pytest.fixture(autouse=True)
def no_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Asked:
    """An order, and the pauses that it made."""

    def __init__(self, workdir: Path, url: str, **more: Any) -> None:
        limits = {"rate": None, "most": None, "bound": None, "fresh": 0, "at_once": 2}
        self.order = {"workdir": str(workdir), "url": url, "name": "a.bin", "sha256": None, "unpack": False}
        self.order.update(limits, **more)
        self.pauses: list[float] = []

    def fetch(self) -> Any:
        return fetch(self.order, self.pauses.append)

    def fails(self, code: str) -> Problem:
        with pytest.raises(Problem) as caught:
            self.fetch()
        assert caught.value.code == code, caught.value.message
        return caught.value


def content_of(workdir: Path, made: Any) -> bytes:
    return (workdir / "data" / "trees" / made["key"] / made["name"]).read_bytes()


def on_disk(workdir: Path) -> str:
    """Return all texts and names below the working folder."""
    found = []
    for path in workdir.rglob("*"):
        found.append(str(path))
        if path.is_file():
            found.append(path.read_bytes().decode("latin-1"))
    return "\n".join(found)


def incoming(workdir: Path) -> list[str]:
    return [path.name for path in (workdir / "data" / "incoming").iterdir() if ".lock" not in path.name]


def test_a_file_is_fetched_once_and_asked_for_again(files: FilesServer, workdir: Path):
    asked = Asked(workdir, files.serve("/a.bin", CONTENT))
    made = asked.fetch()
    assert (made["state"], made["bytes"], made["count"], made["sha256"]) == (
        "fetched",
        len(CONTENT),
        1,
        sha256(CONTENT),
    )
    assert made["key"] == tree_key("a.bin", [["", "", sha256(CONTENT)]], [], False)
    assert content_of(workdir, made) == CONTENT
    assert asked.fetch()["state"] == "unchanged"
    assert incoming(workdir) == []
    files.files["/a.bin"].content, files.files["/a.bin"].etag = b"new", '"2"'
    new = asked.fetch()
    assert (new["state"], content_of(workdir, new), content_of(workdir, made)) == ("fetched", b"new", CONTENT)
    asked.order["fresh"] = 3600
    count = len(files.requests)
    assert (asked.fetch()["state"], asked.fetch()["key"]) == ("ready", new["key"])
    assert len(files.requests) == count


def test_a_date_tells_of_changes_too(files: FilesServer, workdir: Path):
    date = "Mon, 30 Nov 2026 20:00:00 GMT"
    asked = Asked(workdir, files.serve("/a.bin", CONTENT, etag=None, modified=date))
    assert [asked.fetch()["state"] for _ in range(2)] == ["fetched", "unchanged"]
    files.files["/a.bin"].modified = None
    assert asked.fetch()["state"] == "fetched"  # it tells nothing any more


def test_a_known_hash_asks_nobody(files: FilesServer, workdir: Path):
    asked = Asked(workdir, files.serve("/a.bin", CONTENT), sha256=sha256(CONTENT))
    made = asked.fetch()
    elsewhere = Asked(workdir, files.url("/nowhere"), sha256=sha256(CONTENT), name="b.bin").fetch()
    assert [asked.fetch()["state"], elsewhere["state"]] == ["ready", "ready"]
    assert content_of(workdir, elsewhere) == content_of(workdir, made)
    assert len(files.requests) == 1


def test_what_was_pruned_is_made_of_what_is_left(files: FilesServer, workdir: Path):
    asked = Asked(workdir, files.serve("/a.bin", CONTENT))
    made = asked.fetch()
    top = workdir / "data" / "trees" / made["key"]
    top.rename(workdir / "gone")
    assert asked.fetch()["state"] == "unchanged"
    os.unlink(workdir / "data" / "objects" / made["sha256"][:2] / made["sha256"])
    top.rename(workdir / "gone too")
    again = asked.fetch()
    assert (again["state"], content_of(workdir, again)) == ("fetched", CONTENT)


def test_a_wrong_hash_names_both_and_keeps_nothing(files: FilesServer, workdir: Path):
    asked = Asked(workdir, files.serve("/a.bin", CONTENT), sha256=sha256(b"other"))
    problem = asked.fails("wrong_hash")
    assert problem.detail == [sha256(CONTENT), sha256(b"other")]
    assert all(each in problem.message for each in problem.detail)
    assert (incoming(workdir), list(workdir.glob("data/objects/*/*"))) == ([], [])


@pytest.mark.parametrize("length", [True, False])
def test_what_is_too_large_is_not_kept(length: bool, files: FilesServer, workdir: Path):
    url = files.serve("/a.bin", CONTENT, length=length)
    Asked(workdir, url, most=1000).fails("too_large")
    assert not list(workdir.glob("data/objects/*/*"))
    assert sum(path.stat().st_size for path in workdir.glob("data/incoming/*.part")) == 0
    assert Asked(workdir, url, most=len(CONTENT)).fetch()["state"] == "fetched"


@given(
    cuts=st.lists(st.integers(0, len(CONTENT)), max_size=6),
    ranges=st.booleans(),
    etag=st.sampled_from(['"1"', 'W/"1"', None]),
    modified=st.sampled_from([None, "Mon, 30 Nov 2026 20:00:00 GMT"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_cuts_anywhere_are_gone_on_from_or_begun_anew(
    cuts: list[int],
    ranges: bool,
    etag: str | None,
    modified: str | None,
    files: FilesServer,
    tmp_path_factory: pytest.TempPathFactory,
):
    workdir = tmp_path_factory.mktemp("work")
    url = files.serve("/a.bin", CONTENT, cuts=list(cuts), ranges=ranges, etag=etag, modified=modified)
    strong = (etag and etag.startswith('"')) or (etag is None and modified)
    before = len(files.requests)
    asked = Asked(workdir, url)
    if given_up(cuts, ranges=bool(ranges and strong)):
        asked.fails("unreachable")
    made = asked.fetch()
    assert content_of(workdir, made) == CONTENT
    resumed = [headers for _, headers in files.requests[before:] if "Range" in headers]
    assert bool(resumed) == bool(strong and any(0 < cut < len(CONTENT) for cut in used(cuts)))


def used(cuts: list[int]) -> list[int]:
    """Return the cuts up to the one that was none."""
    whole = next((number for number, cut in enumerate(cuts) if cut >= len(CONTENT)), len(cuts))
    return cuts[:whole]


def given_up(cuts: list[int], *, ranges: bool) -> bool:
    """Return whether five answers in a row bring nothing new."""
    size = most = tries = 0
    for cut in cuts:
        size = size + cut if ranges else cut
        if size >= len(CONTENT):
            return False
        tries = 1 if size > most else tries + 1
        most = max(size, most)
        if tries == 5:
            return True
    return False


def test_a_part_of_another_version_is_begun_anew(files: FilesServer, workdir: Path):
    asked = Asked(workdir, files.serve("/a.bin", b"old" * 1000, cuts=[1500, 0, 0, 0, 0, 0, 0]))
    asked.fails("unreachable")
    assert len(incoming(workdir)) == 2
    files.serve("/a.bin", CONTENT, etag='"2"')
    assert content_of(workdir, asked.fetch()) == CONTENT
    assert incoming(workdir) == []


def test_a_server_that_goes_on_with_another_content_is_not_believed(files: FilesServer, workdir: Path):
    asked = Asked(workdir, files.serve("/a.bin", b"old" * 1000, cuts=[1500, 0, 0, 0, 0, 0, 0]))
    asked.fails("unreachable")
    files.serve("/a.bin", CONTENT, etag='"2"', lying_etag='"1"')
    assert content_of(workdir, asked.fetch()) == CONTENT


def test_a_part_that_was_whole_is_not_fetched_again(files: FilesServer, workdir: Path):
    asked = Asked(workdir, files.serve("/a.bin", CONTENT))
    asked.fetch()
    record = next((workdir / "data" / "urls").glob("*.json")).stem
    part = workdir / "data" / "incoming" / f"{record}.part"
    part.write_bytes(CONTENT)
    part.with_name(part.name + ".json").write_text('{"etag": "\\"1\\"", "modified": null}')
    other = Asked(workdir, asked.order["url"])
    for path in [*workdir.glob("data/urls/*.json"), *workdir.glob("data/objects/*/*")]:
        path.unlink()
    assert other.fetch()["state"] == "fetched"
    assert files.requests[-1][1]["Range"] == f"bytes={len(CONTENT)}-"


def test_a_busy_server_is_asked_again_when_it_says(files: FilesServer, workdir: Path):
    busy = [(503, "7"), (429, None), (503, "100000"), (503, "Thu, 01 Jan 1970 00:00:00 GMT")]
    asked = Asked(workdir, files.serve("/a.bin", CONTENT, busy=busy))
    assert content_of(workdir, asked.fetch()) == CONTENT
    assert asked.pauses == [7.0, 2.0, 120.0, 0.0]


@pytest.mark.parametrize("told", ["soon", "²", "-3", "Mon, 31 Feb 99999 00:00:00 GMT"])
def test_a_pause_that_is_none_is_our_own(told: str, files: FilesServer, workdir: Path):
    asked = Asked(workdir, files.serve("/a.bin", CONTENT, busy=[(503, told)]))
    asked.fetch()
    assert asked.pauses == [1.0]


def test_a_redirect_to_what_is_no_address_tells_nothing_of_it(files: FilesServer, workdir: Path):
    url = files.serve("/a.bin", b"", redirect="http://127.0.0.1:s3cret/b")
    assert "s3cret" not in Asked(workdir, url).fails("bad_url").message


def certificate_for(folder: Path, name: str) -> Path:
    """Return a file with a key and a certificate that signed itself."""
    path, kind = folder / f"{name}.pem", "IP" if name[0].isdigit() else "DNS"
    argv = [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "rsa:2048",
        "-keyout",
        f"{path}.key",
        "-out",
        path,
    ]
    argv += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={kind}:{name}"]
    subprocess.run(argv, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.key").read_text())
    return path


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, which makes a certificate")
@pytest.mark.parametrize("name", ["127.0.0.1", "example.org"])
def test_a_certificate_must_be_trusted_and_of_that_host(
    name: str, files: FilesServer, workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    certificate = certificate_for(tmp_path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    files.socket = context.wrap_socket(files.socket, server_side=True)
    url = files.serve("/a.bin", CONTENT).replace("http:", "https:")
    asked = Asked(workdir, url)
    assert "SSL_CERT_FILE" in asked.fails("certificate").message
    assert (asked.pauses, files.requests) == ([], [])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    if name == "127.0.0.1":
        assert content_of(workdir, asked.fetch()) == CONTENT
    else:
        asked.fails("certificate")


def test_a_server_that_stays_busy_is_given_up(files: FilesServer, workdir: Path):
    asked = Asked(workdir, files.serve("/a.bin", CONTENT, busy=[(503, None)] * 9))
    assert "it answers 503, 5 times" in asked.fails("unreachable").message
    assert len(files.requests) == 5


@pytest.mark.parametrize(
    ("path", "code", "advice"),
    [("/closed", "refused", "~/.netrc"), ("/nowhere", "not_found", "look at the address")],
)
def test_a_refusal_says_what_to_do(path: str, code: str, advice: str, files: FilesServer, workdir: Path):
    files.serve("/closed", CONTENT, login="me:right")
    problem = Asked(workdir, files.url(path, "me:wr0ng@")).fails(code)
    assert advice in problem.message
    assert "wr0ng" not in problem.message
    assert len(files.requests) == 1


def test_a_login_is_used_and_never_told(files: FilesServer, workdir: Path, tmp_path: Path):
    files.serve("/a.bin", CONTENT, login="me:s3cret")
    url = files.url("/a.bin?token=t0ken", "me:s3cret@")
    assert Asked(workdir, url).fetch()["source"] == files.url("/a.bin?...")
    told = on_disk(workdir)
    assert "s3cret" not in told
    assert "t0ken" not in told
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert Asked(workdir, files.url("/a.bin"), name="b.bin").fetch()["state"] == "fetched"


def test_a_login_does_not_follow_a_redirect(files: FilesServer, workdir: Path):
    with_login = files.url("/here", "me:s3cret@")
    files.serve("/here", b"", login="me:s3cret", redirect=files.serve("/there", CONTENT))
    assert content_of(workdir, Asked(workdir, with_login).fetch()) == CONTENT
    (_, first), (path, second) = files.requests
    assert first["Authorization"] == "Basic " + base64.b64encode(b"me:s3cret").decode()
    assert (path, "Authorization" in second) == ("/there", False)


def test_proxies_are_those_of_the_environment_now(
    files: FilesServer, workdir: Path, monkeypatch: pytest.MonkeyPatch
):
    url = files.serve("/a.bin", CONTENT)
    assert Asked(workdir, url).fetch()["state"] == "fetched"
    monkeypatch.setenv("http_proxy", files.url(""))
    files.serve("http://example.org/b.bin", b"by proxy")
    made = Asked(workdir, "http://example.org/b.bin", name="b.bin").fetch()
    assert content_of(workdir, made) == b"by proxy"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert Asked(workdir, url).fetch()["state"] == "unchanged"
    assert files.requests[-1][0] == "/a.bin"


def test_a_rate_is_kept(files: FilesServer, workdir: Path):
    asked = Asked(workdir, files.serve("/a.bin", CONTENT), rate=100_000)
    asked.fetch()
    # The pauses are not made, so the last is as long as all of it should take, less what it took.
    assert len(CONTENT) / 100_000 - 5 < max(asked.pauses) <= len(CONTENT) / 100_000


def test_of_two_at_once_the_second_adopts(files: FilesServer, workdir: Path):
    url = files.serve("/a.bin", CONTENT)
    started = threading.Semaphore(0)
    files.files["/a.bin"].hold = lambda: [started.acquire(timeout=PATIENCE) for _ in range(4)]

    def one(_: int) -> str:
        started.release()
        return str(Asked(workdir, url, fresh=3600).fetch()["state"])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        states = sorted(pool.map(one, range(4)))
    assert states == ["fetched", "ready", "ready", "ready"]
    assert len(files.requests) == 1


def test_only_so_many_fetch_at_once(files: FilesServer, workdir: Path):
    layout = Layout(str(workdir))
    release = acquire(os.path.join(layout.folder(b"incoming"), b".lock-slot-0"))
    assert release is not None
    asked = Asked(workdir, files.serve("/a.bin", CONTENT), at_once=1)
    waits: list[int] = []

    def sleep(seconds: float) -> None:
        waits.append(len(files.requests))
        if len(waits) == 3:
            release()

    assert fetch(asked.order, sleep)["state"] == "fetched"
    assert waits == [0, 0, 0]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/b",
        "file:///etc/passwd",
        "http://",
        "http:a",
        "http://a:b/c",
        "http://a/b c",
        "https://a/grün",
    ],
)
def test_other_urls_are_refused(url: str, workdir: Path):
    Asked(workdir, url).fails("bad_url")


def test_a_bad_name_or_hash_is_refused_before_anything_is_fetched(files: FilesServer, workdir: Path):
    url = files.serve("/a.bin", CONTENT)
    Asked(workdir, url, name="../a").fails("unsafe")
    Asked(workdir, url, sha256="../../x").fails("bad_hash")
    assert files.requests == []


def test_a_host_that_is_not_there_is_named(workdir: Path):
    problem = Asked(workdir, "http://user:pw@127.0.0.1:9/a").fails("unreachable")
    assert "127.0.0.1:9/a" in problem.message
    assert "pw" not in problem.message


def test_only_what_people_may_see_is_shown():
    assert shown("https://me:pw@h.org:8/a/b?sig=1&x=2#f") == "https://h.org:8/a/b?..."
