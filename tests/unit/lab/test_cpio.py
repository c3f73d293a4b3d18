"""The newc format, against what the kernel's buffer-format document says of it."""

import stat

from hypothesis import given
from hypothesis import strategies as st

from tests.lab import cpio

names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/"), min_size=1, max_size=20)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
permissions = st.integers(0, 0o7777)
entries = st.builds(cpio.file, paths, st.binary(max_size=50), permissions)


def read(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Name, mode and content of each record; the record is 110 bytes of header, then name and data padded to 4."""
    at = 0
    found: list[tuple[str, int, bytes]] = []
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[start : start + 8], 16) for start in range(at + 6, at + 110, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        data = at + (110 + name_size + 3) // 4 * 4
        at = data + (size + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            assert at == len(archive)
            return found
        found.append((name[:-1].decode(), mode, archive[data : data + size]))


def test_a_record_by_hand() -> None:
    header = (
        "070701"
        "00000001"  # inode
        "00008180"  # mode: a regular file, rw for its owner
        "00000000" "00000000"  # user, group
        "00000001"  # links
        "00000000"  # time
        "00000005"  # size
        "00000000" "00000000" "00000000" "00000000"  # device it is on, device it is
        "00000002"  # length of the name with its NUL
        "00000000"  # checksum: none
    )  # fmt: skip
    record = header.encode() + b"a\0" + b"hello\0\0\0"
    assert cpio.archive([cpio.file("a", b"hello", 0o600)]).startswith(record)


@given(st.lists(entries, max_size=5))
def test_what_is_written_can_be_read(written: list[cpio.Entry]) -> None:
    assert read(cpio.archive(written)) == [(entry.path, entry.mode, entry.data) for entry in written]


@given(st.lists(entries, max_size=3), st.lists(entries, max_size=3))
def test_archives_may_follow_each_other(first: list[cpio.Entry], second: list[cpio.Entry]) -> None:
    assert len(cpio.archive(first)) % 4 == 0
    assert read(cpio.archive(second)) == read((cpio.archive(first) + cpio.archive(second))[len(cpio.archive(first)) :])


@given(st.lists(entries, max_size=5))
def test_every_folder_comes_before_what_lies_in_it(written: list[cpio.Entry]) -> None:
    seen: set[str] = set()
    for entry in cpio.with_parents(written):
        parent = entry.path.rpartition("/")[0]
        assert not parent or parent in seen
        seen.add(entry.path)
    assert seen >= {entry.path for entry in written}


def test_types() -> None:
    assert stat.S_ISDIR(cpio.folder("d").mode)
    assert stat.S_ISLNK(cpio.link("l", "target").mode)
    assert stat.S_ISCHR(cpio.character_device("dev/console", 5, 1).mode)
    assert cpio.character_device("dev/console", 5, 1).device == (5, 1)
