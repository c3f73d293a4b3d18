"""Map files: what another VMM's map says, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vgicmgr.guest.configuration import Region
from vgicmgr.guest.mapfile import AddressMapError, read_address_map

EXAMPLES = Path(__file__).parents[3] / "xml"
LEAST = 'name = "least"\ndistributor = { base = 0x0, size = 0x1_0000 }\n'


def test_the_example() -> None:
    kvmtool = read_address_map((EXAMPLES / "kvmtool.toml").read_bytes())
    assert kvmtool.name == "kvmtool"
    assert kvmtool.distributor == Region(0x3FFF_0000, 0x1_0000)
    assert kvmtool.redistributors == (Region(0x3F7F_0000, 64 * 0x2_0000),)
    assert kvmtool.its == Region(0x3F7D_0000, 0x2_0000)
    assert kvmtool.reserved[27] == "the virtual timer"
    assert not kvmtool.fixed


def test_the_least() -> None:
    least = read_address_map(LEAST.encode())
    assert (least.redistributors, least.its, least.gicv2m, least.fixed) == ((), None, None, True)
    assert (least.pmu_intid, least.nr_irqs, least.ipa_bits) == (23, 288, 40)


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        (b"\xff", "no TOML"),
        (b"a = ", "no TOML"),
        (b"", "no distributor"),
        (b'name = "x"', "no distributor"),
        (LEAST.replace("least", "\\n").encode(), "no name of 1 to 80 printable characters"),
        (LEAST.encode() + b"uart = 1", "unknown key 'uart'"),
        (LEAST.encode() + b"its = 1", "its is a table of base and size"),
        (LEAST.encode() + b"its = { base = -1, size = 1 }", "for base"),
        (LEAST.encode() + b"its = { base = 1.5, size = 1 }", "for base"),
        (LEAST.encode() + b"its = { base = true, size = 1 }", "for base"),
        (LEAST.encode() + b"its = { base = 0, size = 0 }", "for size"),
        (LEAST.encode() + b"its = { base = 0, size = 1, index = 1 }", "its is a table of base and size"),
        (LEAST.encode() + b"redistributors = { base = 0, size = 1 }", "arrays of tables"),
        (LEAST.encode() + b"redistributors = [1]", "redistributors is a table"),
        (LEAST.encode() + b"others = [{ base = 0, size = 1 }]", "no name"),
        (LEAST.encode() + b"pmu-intid = 3", "for pmu-intid"),
        (LEAST.encode() + b"reserved = 1", "reserved is a table"),
        (LEAST.encode() + b"reserved = { a = 1 }", "for a"),
        (b"a = " + b"[" * 5000, "no TOML"),
    ],
)
def test_refused_in_one_line(toml: bytes, why: str) -> None:
    with pytest.raises(AddressMapError) as caught:
        read_address_map(toml)
    assert why in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "device", ["distributor", "its", "gicv2m", "cpu-interface", "redistributors", "high-redistributors"]
)
def test_a_moved_device_is_the_only_one_that_moves(device: str) -> None:
    full = f"""{LEAST}
    its = {{ base = 0x1000_0000, size = 0x1000 }}
    gicv2m = {{ base = 0x2000_0000, size = 0x1000 }}
    cpu-interface = {{ base = 0x3000_0000, size = 0x1000 }}
    redistributors = [{{ base = 0x5000_0000, size = 0x2_0000 }}, {{ base = 0x6000_0000, size = 0x2_0000 }}]
    """
    before = read_address_map(full.encode())
    after = before.moved(device, 0x7000_0000)
    old, new = before.region(device), after.region(device)
    assert old and new
    assert (new.base, new.size) == (0x7000_0000, old.size)
    assert after.moved(device, old.base) == before


@hypothesis_settings(deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_bytes(data: bytes) -> None:
    try:
        read_address_map(LEAST.encode() + data)
    except AddressMapError as error:
        assert error.message.isprintable()
