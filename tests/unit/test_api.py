"""``import vgicmgr``: the public names, and that importing the package costs nothing."""

import json
import subprocess
import sys

import pytest

import vgicmgr
from tests.fakes.hosts import GICV2_HOST
from tests.unit.migration.examples import boot, document_of, with_record


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


def test_an_arrival_can_be_judged_by_what_is_exported() -> None:
    """What a scheduler needs: the guest's XML, and the document of the host it may go to."""
    domain = vgicmgr.read_domain(with_record(boot(GICV2_HOST)))
    host = vgicmgr.read_document(json.dumps(document_of(GICV2_HOST)).encode())
    assert isinstance(host, vgicmgr.DocumentedHost)
    assert vgicmgr.check_arrival(domain, host).findings == ()


def test_every_exception_is_one_of_vgicmgrs() -> None:
    errors = [name for name in vgicmgr.__all__ if name.endswith(("Error", "Unavailable", "CannotTell"))]
    assert {"RecordError", "HostDocumentError", "LibvirtError"} < set(errors)
    for name in errors:
        assert issubclass(getattr(vgicmgr, name), vgicmgr.VgicmgrError), name
