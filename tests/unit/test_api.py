"""``import vgicmgr``: the public names, and that importing the package costs nothing."""

import subprocess
import sys

import pytest

import vgicmgr


@pytest.mark.parametrize("name", vgicmgr.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(vgicmgr, name) is not None


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'probe'"):
        vgicmgr.probe  # noqa: B018


def test_importing_the_package_imports_none_of_its_modules() -> None:
    program = "import sys, vgicmgr; print([name for name in sys.modules if name.startswith('vgicmgr.')])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "[]\n"
