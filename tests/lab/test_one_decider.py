"""On real kernels, too, hook, ``translate``, ``rehearse`` and a host's document find the same about a start.

``tests/unit/guest/test_one_decider.py`` holds them against each other for generated guests and hosts; what the verdict
comes to is held against QEMU in ``test_start.py``.
"""

import json

import pytest

from tests.lab.conftest import LabHost
from tests.lab.spec import HOSTS
from tests.lab.test_start import GUESTS, cpu_features

CHECKOUT = "/opt/vgicmgr"
SAMPLE = {
    **{
        name: GUESTS[name].xml()
        for name in ("no wish", "GICv2", "9 vCPUs, GICv2", "no PMU", "SVE of 256 bits", "32-bit")
    },
    **{
        name: GUESTS[name].xml()
        for name in ("CPU cortex-a53", "CPU cortex-a57", "CPU neoverse-n1", "no CPU", "1024 GiB")
    },
    "its=off": GUESTS["no wish"].xml(),
    "unknown feature": GUESTS["no wish"].xml().replace("<cpu mode='host-passthrough'/>", cpu_features(svee="require")),
}


def with_its_off(xml: str) -> str:
    qemu = "http://libvirt.org/schemas/domain/qemu/1.0"
    arguments = "<q:commandline><q:arg value='-machine'/><q:arg value='its=off'/></q:commandline>"
    return xml.replace("<domain ", f"<domain xmlns:q='{qemu}' ", 1).replace("</domain>", f"{arguments}</domain>")


@pytest.mark.parametrize("kind", ["trixie", "gicv2", "a53", "max"])
def test_all_ways_find_the_same(lab_host: LabHost, kind: str) -> None:
    host = lab_host(HOSTS[kind])
    host.run(["mkdir", "-p", "/tmp/sample"], check=True)
    for name, xml in SAMPLE.items():
        host.push(f"/tmp/sample/{name}.xml", with_its_off(xml) if name == "its=off" else xml)
    document = "python3 -m vgicmgr.cli check-host --format json >/tmp/sample/host.json; test -s /tmp/sample/host.json"
    host.run(["sh", "-c", document], timeout=300, check=True)
    files = [f"/tmp/sample/{name}.xml" for name in SAMPLE]
    command = ["python3", "-m", "tests.lab.inside.four_ways", "/tmp/sample/host.json", *files]
    ways = json.loads(host.run(command, cwd=CHECKOUT, timeout=300, check=True).stdout)
    assert set(ways) == set(SAMPLE)
    for name, found in ways.items():
        assert found["hook"] == found["rehearse"], name
        # whether KVM takes a model's target only a vCPU tells, or the document, which has the cores' MIDR_EL1
        own_model = ["cpu-model-unsupported error"] if found["document"] != found["translate"] else []
        assert sorted([*found["translate"], *own_model]) == found["document"] == found["hook"], name
