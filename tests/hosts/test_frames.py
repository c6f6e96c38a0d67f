import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satellite_fixture import HOSTILE

from dagster_slurm_components.hosts.program import BOOTSTRAP
from dagster_slurm_components.hosts.satellite import protocol
from dagster_slurm_components.hosts.satellite.protocol import (
    FrameError,
    as_text,
    encode_frame,
    native,
    read_frame,
)

words = st.text(max_size=5)
headers = st.dictionaries(words, st.integers() | st.none() | st.lists(words, max_size=3), max_size=3)


@settings(deadline=None)
@given(headers, st.binary(max_size=50), st.integers(min_value=1, max_value=9))
def test_a_frame_comes_back_however_the_stream_is_cut(header, blob, piece):
    stream = io.BytesIO(encode_frame(header, blob) + encode_frame({"next": 1}))
    read = lambda size: stream.read(min(size, piece))  # noqa: E731
    assert read_frame(read) == (header, blob)
    assert read_frame(read) == ({"next": 1}, b"")
    assert read_frame(read) is None


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_noise_is_an_error_or_a_frame_and_never_a_crash(noise):
    with contextlib.suppress(FrameError):
        read_frame(io.BytesIO(noise).read)


def test_a_corrupt_length_is_refused_before_anything_is_read():
    stream = io.BytesIO(b"\xff" * 8 + b"x" * 100)
    with pytest.raises(FrameError, match="over the limits"):
        read_frame(stream.read)
    assert stream.tell() == 8


def test_a_header_that_nests_deep_is_refused():
    text = b'{"a":' * 200_000 + b"1" + b"}" * 200_000
    with pytest.raises(FrameError, match="not JSON"):
        read_frame(io.BytesIO(len(text).to_bytes(4, "big") + bytes(4) + text).read)


def test_a_large_length_costs_no_more_than_what_comes():
    asked = []

    def read(size):
        asked.append(size)
        return b""

    data = iter([(100).to_bytes(4, "big") + protocol.MAX_BLOB.to_bytes(4, "big"), b" " * 100])
    with pytest.raises(FrameError, match="not JSON"):
        read_frame(lambda size: next(data, b""))
    with pytest.raises(FrameError, match="inside a frame"):
        protocol._read_exactly(read, protocol.MAX_BLOB)
    assert max(asked) <= 2 * 1024 * 1024


@pytest.mark.parametrize("text", [b"[1]", b'"x"', b"{", b"\xff"])
def test_a_header_that_is_no_object_is_an_error(text):
    frame = len(text).to_bytes(4, "big") + bytes(4) + text
    with pytest.raises(FrameError):
        read_frame(io.BytesIO(frame).read)


def test_too_large_a_blob_is_refused_before_it_is_sent(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_BLOB", 10)
    with pytest.raises(FrameError, match="too much was asked for"):
        encode_frame({}, b"x" * 11)


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_survive_as_text(data):
    if b"\0" not in data:
        assert native(as_text(data)) == data


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_survives_a_frame(name):
    frame = read_frame(io.BytesIO(encode_frame({"path": name})).read)
    assert frame is not None
    assert native(frame[0]["path"]) == native(name)


def test_the_bootstrap_is_free_of_what_shells_change():
    assert not set(BOOTSTRAP) & set("'\\!$`\n")
