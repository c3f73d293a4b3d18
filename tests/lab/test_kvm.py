"""The kernel's interface, every call of it, on real kernels and different hosts: see ``inside/kvm_interface.py``."""

import pytest

from tests.lab.conftest import LabHost
from tests.lab.spec import HOSTS


@pytest.mark.parametrize("kind", ["bookworm", "trixie", "sid", "gicv2", "no-pmu", "max-sid"])
def test_the_interface_is_as_documented(lab_host: LabHost, kind: str) -> None:
    host = lab_host(HOSTS[kind])
    command = [
        "python3",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "setup.cfg",
        "tests/lab/inside/kvm_interface.py",
    ]
    result = host.run(command, cwd="/opt/vgicmgr", timeout=120)
    print(result.stdout)
    assert result.exit_code == 0, result.stdout + result.stderr
