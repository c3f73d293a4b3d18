"""JSON of others: what is refused before anything is made of it."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.errors import HostDocumentError, RecordError
from vgicmgr.host.reader import Member, read_json


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1.0",
        b"1e3",
        b"1e999",
        b"NaN",
        b"-Infinity",
        b'{"a": 1, "a": 2}',
        b"1" * 21,
        b"1" * 5000,
        b"[" * 40 + b"]" * 40,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        '"\u00e9"'.encode("utf-16"),
        b"{} {}",
    ],
)
def test_refused(content: bytes) -> None:
    with pytest.raises(HostDocumentError):
        read_json(content)


def test_too_large() -> None:
    with pytest.raises(HostDocumentError, match="larger than 64 MiB"):
        read_json(b" " * ((64 << 20) + 1))


@given(st.binary(max_size=64))
def test_whatever_the_bytes(content: bytes) -> None:
    with suppress(HostDocumentError):
        read_json(content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_vgicmgr_writes_is_read(value: object) -> None:
    assert read_json(json.dumps(value).encode()) == value


def test_another_kind_of_document_has_its_own_error() -> None:
    with pytest.raises(RecordError, match=r"member a\.b is missing"):
        Member({"a": {}}, failure=RecordError)["a"]["b"]


class TestMember:
    @pytest.mark.parametrize("value", [True, "1", 1.0, None, -1, 11, [], {}])
    def test_numbers(self, value: object) -> None:
        assert Member(10).integer(0, 10) == 10
        with pytest.raises(HostDocumentError, match="whole number from 0 to 10"):
            Member(value).integer(0, 10)

    @pytest.mark.parametrize("value", [0, 1, "true", None])
    def test_booleans(self, value: object) -> None:
        assert Member(True).boolean() is True
        with pytest.raises(HostDocumentError):
            Member(value).boolean()

    @pytest.mark.parametrize("value", ["6.12\x1b]0;owned\x07", "a\nb", "\u202eevil", "\ud800", "a" * 129, 1, None])
    def test_texts(self, value: object) -> None:
        assert Member("6.12.1-arm64").text() == "6.12.1-arm64"
        with pytest.raises(HostDocumentError, match="printable text"):
            Member(value).text()

    @pytest.mark.parametrize(
        "value",
        ["-0x1", "0X1", "0x", "0x_1", "0x01", "0xF", "1", " 0x1", "0x1\n", "0x\u0661", "0x1" + "0" * 16, 1, None],
    )
    def test_registers(self, value: object) -> None:
        assert Member("0xf").register(4) == 0xF
        assert Member("0x0").register(4) == 0
        with pytest.raises(HostDocumentError):
            Member(value).register(64)

    def test_a_register_wider_than_it_can_be(self) -> None:
        with pytest.raises(HostDocumentError, match="does not fit in 32 bits"):
            Member("0x100000000").register(32)

    def test_nothing_of_a_bad_name_is_printed(self) -> None:
        with pytest.raises(HostDocumentError) as error:
            list(Member({"\x1b[31m": 1}, "registers").members(8, "[A-Z]+"))
        assert str(error.value).isprintable()

    def test_the_path_tells_where(self) -> None:
        document = Member({"gic": {"v3": {"revisions": [1, "2"]}}})
        with pytest.raises(HostDocumentError, match=r"gic\.v3\.revisions\[1\]"):
            [one.integer(0, 9) for one in document["gic"]["v3"]["revisions"].elements(4)]
