"""What is read out of APT's answers."""

from tests.lab.debian import planned_files

# As apt 2.6 prints it.
PLAN = """\
Inst libc6 (2.41-12+deb13u1 Debian:13.1/stable [arm64])
Inst qemu-utils (1:10.0.3+ds-0+deb13u1 Debian:13.1/stable [arm64]) []
Inst python3-jsonschema (4.19.2-6 Debian:13.1/stable [all])
Conf libc6 (2.41-12+deb13u1 Debian:13.1/stable [arm64])
"""


def test_an_installation_plan_names_the_files_in_apts_cache() -> None:
    assert planned_files(PLAN) == [
        "libc6_2.41-12+deb13u1_arm64.deb",
        "qemu-utils_1%3a10.0.3+ds-0+deb13u1_arm64.deb",
        "python3-jsonschema_4.19.2-6_all.deb",
    ]
