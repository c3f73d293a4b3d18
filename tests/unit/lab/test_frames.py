"""Frames between the lab and the agent."""

import io

from hypothesis import given
from hypothesis import strategies as st

from tests.lab import frames

values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.text(), max_size=3))
headers = st.dictionaries(st.text(), values, max_size=4)


@given(st.lists(st.tuples(headers, st.binary(max_size=100)), max_size=4))
def test_frames_are_read_as_they_were_written(written: list[tuple[dict[str, object], bytes]]) -> None:
    stream = io.BytesIO(b"".join(frames.encode(header, payload) for header, payload in written))
    assert [frames.decode(stream.read) for _ in written] == written
    assert stream.read() == b""


def test_a_frame_by_hand() -> None:
    assert frames.encode({"a": 1}, b"xyz") == b'\0\0\0\x08\0\0\0\x03{"a": 1}xyz'
