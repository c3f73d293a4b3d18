"""SVE vector lengths as QEMU's docs/system/arm/cpu-features.rst tells of them for KVM guests."""

from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.qemu.sve import unmet_vector_length

A64FX = frozenset({128, 256, 512})


def test_a_supported_length_brings_all_shorter_supported_ones() -> None:
    assert unmet_vector_length({512: True}, A64FX) == ""


def test_an_unsupported_length_cannot_be_on() -> None:
    assert unmet_vector_length({384: True}, A64FX) == "the kernel has no vectors of 384 bits"


def test_an_unsupported_length_may_be_off() -> None:
    assert unmet_vector_length({384: False}, A64FX) == ""


def test_a_supported_length_that_is_off_takes_the_longer_ones_with_it() -> None:
    assert unmet_vector_length({256: False}, A64FX) == ""


def test_a_length_cannot_be_on_while_a_shorter_supported_one_is_off() -> None:
    reason = unmet_vector_length({256: False, 512: True}, A64FX)
    assert reason == "the kernel gives no vectors of 512 bits without those of 256 bits"


def test_some_length_must_be_left() -> None:
    assert unmet_vector_length({128: False}, A64FX) == "without the vector length of 128 bits none is left"


LENGTHS = st.integers(1, 16).map(lambda vq: 128 * vq)


@given(st.frozensets(LENGTHS, min_size=1), st.data())
def test_asking_for_supported_lengths_alone_is_never_refused(supported: frozenset[int], data: st.DataObject) -> None:
    wishes = data.draw(st.dictionaries(st.sampled_from(sorted(supported)), st.just(True)))
    assert unmet_vector_length(wishes, supported) == ""


@given(st.frozensets(LENGTHS, min_size=1), LENGTHS)
def test_asking_for_one_unsupported_length_is_always_refused(supported: frozenset[int], length: int) -> None:
    assert bool(unmet_vector_length({length: True}, supported)) == (length not in supported)
