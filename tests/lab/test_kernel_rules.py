"""The rehearsal gives the errno that the kernel's documents and selftests expect, for each misuse, on three kernels."""

import errno
import json

import pytest

from tests.lab.conftest import LabHost
from tests.lab.kernel_rules import GICV2, GICV3, RULES
from tests.lab.spec import HOSTS, HostSpec, Release

HOSTS_OF = {
    GICV3: {Release.BOOKWORM: HOSTS["max-bookworm"], Release.TRIXIE: HOSTS["max"], Release.SID: HOSTS["max-sid"]},
    GICV2: {release: HostSpec(release, cpu="cortex-a57", gic=2, pmu=False) for release in Release},
}
"""A host of each kernel, by the world that rules are about."""


@pytest.mark.parametrize("release", Release)
@pytest.mark.parametrize("world", RULES)
def test_each_misuse_is_answered_as_its_reference_says(world: str, release: Release, lab_host: LabHost) -> None:
    host = lab_host(HOSTS_OF[world][release])
    result = host.run(["python3", "-m", "tests.lab.kernel_rules", world], cwd="/opt/vgicmgr", timeout=120, check=True)
    answers = json.loads(result.stdout)
    assert {name: named(answer) for name, answer in answers.items()} == {
        rule.name: named(rule.errno) for rule in RULES[world]
    }


def test_no_two_rules_of_a_world_have_one_name() -> None:
    for rules in RULES.values():
        assert len({rule.name for rule in rules}) == len(rules)


def named(answer: int | str) -> str:
    return answer if isinstance(answer, str) else errno.errorcode.get(answer, "accepted")
