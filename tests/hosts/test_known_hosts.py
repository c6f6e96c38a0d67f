import base64
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_slurm_components.hosts.known_hosts import Verdict, about, fingerprint, host_name, judge, parse

ONE, TWO, THREE = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
KEY = bytes([1]) * 32


def verdict(text: str, name: str = "login.example.org", key_type: str = "ssh-ed25519", key: bytes = KEY):
    found, entry = judge(parse(text, "known_hosts"), name, key_type, key)
    return found, entry.place if entry else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"login.example.org ssh-ed25519 {ONE} a comment", (Verdict.KNOWN, "known_hosts:1")),
        (f"LOGIN.example.org ssh-ed25519 {ONE}", (Verdict.KNOWN, "known_hosts:1")),
        (f"# comment\n\nx,login.example.org,y\tssh-ed25519 {ONE}", (Verdict.KNOWN, "known_hosts:3")),
        (f"*.example.org ssh-ed25519 {ONE}", (Verdict.KNOWN, "known_hosts:1")),
        (f"login?.example.org ssh-ed25519 {ONE}", (Verdict.UNKNOWN, None)),
        (f"*.example.org,!login.example.org ssh-ed25519 {ONE}", (Verdict.UNKNOWN, None)),
        (f"other ssh-ed25519 {ONE}", (Verdict.UNKNOWN, None)),
        (f"login.example.org ssh-ed25519 {TWO}", (Verdict.CHANGED, "known_hosts:1")),
        # several login nodes behind one name, each with its own key
        (
            f"login.example.org ssh-ed25519 {TWO}\nlogin.example.org ssh-ed25519 {ONE}",
            (Verdict.KNOWN, "known_hosts:2"),
        ),
        # only a key of another kind is known: it can't have changed
        (f"login.example.org ssh-rsa {TWO}", (Verdict.UNKNOWN, None)),
        (f"@revoked login.example.org ssh-ed25519 {ONE}", (Verdict.REVOKED, "known_hosts:1")),
        (
            f"login.example.org ssh-ed25519 {ONE}\n@revoked * ssh-ed25519 {ONE}",
            (Verdict.REVOKED, "known_hosts:2"),
        ),
        (f"@cert-authority *.example.org ssh-ed25519 {ONE}", (Verdict.UNKNOWN, None)),
        ("login.example.org ssh-ed25519 not!base64", (Verdict.UNKNOWN, None)),
        ("login.example.org ssh-ed25519", (Verdict.UNKNOWN, None)),
        ("", (Verdict.UNKNOWN, None)),
    ],
)
def test_what_the_files_say(text, expected):
    assert verdict(text) == expected


def test_a_port_of_its_own_is_part_of_the_name():
    assert host_name("login.example.org", 22) == "login.example.org"
    name = host_name("login.example.org", 2222)
    assert name == "[login.example.org]:2222"
    assert verdict(f"[login.example.org]:2222 ssh-ed25519 {ONE}", name)[0] is Verdict.KNOWN
    assert verdict(f"[login.example.org]:* ssh-ed25519 {ONE}", name)[0] is Verdict.KNOWN
    assert verdict(f"login.example.org ssh-ed25519 {ONE}", name)[0] is Verdict.UNKNOWN


def test_the_kinds_of_keys_listed_for_a_host():
    text = f"a ssh-rsa {ONE}\na,b ssh-ed25519 {TWO}\nb ecdsa-sha2-nistp256 {THREE}"
    assert [entry.key_type for entry in about(parse(text, "f"), "a")] == ["ssh-rsa", "ssh-ed25519"]


@pytest.fixture
def hashed_file(tmp_path):
    if subprocess.run(["which", "ssh-keygen"], capture_output=True, check=False).returncode:
        pytest.skip("no ssh-keygen on this machine")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text().split()
    hosts = tmp_path / "known_hosts"
    hosts.write_text(f"login.example.org {public[0]} {public[1]}\n[other]:2222 {public[0]} {public[1]}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(hosts)], check=True, capture_output=True)
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(key)], check=True, capture_output=True, text=True
    ).stdout
    return hosts.read_text(), base64.b64decode(public[1]), shown.split()[1]


def test_hashed_names_and_fingerprints_are_openssh_s(hashed_file):
    text, key, shown = hashed_file
    assert "login" not in text
    assert verdict(text, key=key)[0] is Verdict.KNOWN
    assert verdict(text, "[other]:2222", key=key)[0] is Verdict.KNOWN
    assert verdict(text, "other", key=key)[0] is Verdict.UNKNOWN
    assert fingerprint(key) == shown


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read(text):
    assert verdict(text)[0] in Verdict
    assert verdict(f"|1|{text} ssh-ed25519 {ONE}")[0] in Verdict
