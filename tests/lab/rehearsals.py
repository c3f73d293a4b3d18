"""Configurations, good and bad, to rehearse on real kernels: with all their vCPUs, and with the representative ones.

In a host, ``python3 -m tests.lab.rehearsals GIC`` (2 or 3) rehearses each in both ways and prints as JSON what the
kernel made of them: the refused call without the vCPU's number and its errno, or nothing. ``python3 -m
tests.lab.rehearsals forever`` rehearses 512 vCPUs again and again, until a signal ends it.
"""

import errno
import json
import sys

from vgicmgr.dataclass import replace
from vgicmgr.guest.configuration import Region, VGICConfiguration
from vgicmgr.guest.plan import SetDeviceAttribute, SetVCPUAttribute, call_plan, representative_vcpus
from vgicmgr.guest.scratch import ScratchVM, rehearse
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vgic_v3 import RedistributorRegion
from vgicmgr.qemu.gic import MSIController

LOW, HIGH = 0x080A_0000, 0x40_0000_0000
"""Where QEMU's virt machine has its redistributors."""
PLAIN = ("KVM_ARM_VCPU_PSCI_0_2",)


def gicv3(vcpus: int) -> VGICConfiguration:
    """As QEMU's virt machine has it, with an ITS and a PMU."""
    regions = [RedistributorRegion(0, LOW, min(vcpus, 123))]
    if vcpus > 123:
        regions.append(RedistributorRegion(1, HIGH, vcpus - 123))
    return VGICConfiguration(
        machine="virt",
        gic_version=3,
        msi=MSIController.ITS,
        vcpus=vcpus,
        max_vcpus=vcpus,
        ipa_bits=40,
        nr_irqs=288,
        distributor=Region(0x0800_0000, 0x1_0000),
        cpu_interface=None,
        redistributors=tuple(regions),
        its=Region(0x0808_0000, 0x2_0000),
        gicv2m=None,
        pmu_intid=23,
        features=(*PLAIN, "KVM_ARM_VCPU_PMU_V3"),
    )


def gicv2(vcpus: int) -> VGICConfiguration:
    """As QEMU's virt machine has it, without a PMU."""
    return replace(
        gicv3(vcpus),
        gic_version=2,
        msi=MSIController.GICV2M,
        cpu_interface=Region(0x0801_0000, 0x1_0000),
        redistributors=(),
        its=None,
        gicv2m=Region(0x0802_0000, 0x1000),
        pmu_intid=None,
        features=PLAIN,
    )


THREE = gicv3(3)
ACCEPTED = {
    3: {
        **{f"{vcpus} vCPUs": gicv3(vcpus) for vcpus in (1, 2, 8, 9, 123, 124, 512)},
        "no ITS": replace(THREE, msi=MSIController.NONE),
        "no PMU": replace(THREE, pmu_intid=None, features=PLAIN),
        "one vCPU with its PMU on an SPI": replace(gicv3(1), pmu_intid=40),
        "addresses as high as they go": replace(THREE, distributor=Region((1 << 40) - 0x1_0000, 0x1_0000)),
    },
    2: {f"{vcpus} vCPUs": gicv2(vcpus) for vcpus in (1, 2, 7, 8)},
}
REFUSED = {
    3: {
        "513 vCPUs": gicv3(513),
        "an IPA size of 60 bits": replace(THREE, ipa_bits=60),
        "a vCPU for 32 bits with pointer authentication": replace(
            THREE, features=("KVM_ARM_VCPU_EL1_32BIT", "KVM_ARM_VCPU_PTRAUTH_ADDRESS")
        ),
        "100 interrupts": replace(THREE, nr_irqs=100),
        "vCPUs with their PMUs on one SPI": replace(THREE, pmu_intid=40),
        "the PMU on an SGI": replace(THREE, pmu_intid=15),
        "a PMU without the feature": replace(THREE, features=PLAIN),
        "an ITS beyond the IPA size": replace(THREE, its=Region(1 << 40, 0x2_0000)),
        "an ITS misaligned": replace(THREE, its=Region(0x0808_1000, 0x2_0000)),
        "a distributor misaligned": replace(THREE, distributor=Region(0x0800_1000, 0x1_0000)),
        "redistributors beyond the IPA size": replace(
            gicv3(512), redistributors=(RedistributorRegion(0, (1 << 40) - 0x1_0000, 512),)
        ),
        "redistributors overlapping": replace(
            gicv3(512), redistributors=(RedistributorRegion(0, LOW, 123), RedistributorRegion(1, LOW, 389))
        ),
        "a region of no redistributors": replace(THREE, redistributors=(RedistributorRegion(0, LOW, 0),)),
        "a GICv2 on a host without": gicv2(3),
    },
    2: {
        "9 vCPUs": gicv2(9),
        "12 vCPUs": gicv2(12),
        "a PMU on a host without": replace(gicv2(2), pmu_intid=23),
        "a CPU interface misaligned": replace(gicv2(2), cpu_interface=Region(0x0801_0100, 0x1_0000)),
        "a distributor beyond the IPA size": replace(gicv2(2), distributor=Region(1 << 40, 0x1_0000)),
        "a GICv3 on a host without": gicv3(3),
    },
}


def outcome(scratch: ScratchVM) -> str:
    call, error = scratch.refused, scratch.error
    if call is None or error is None:
        return ""
    about = f" {call.attribute}" if isinstance(call, SetDeviceAttribute | SetVCPUAttribute) else ""
    return f"{type(call).__name__}{about}: {errno.errorcode[error.errno]}"


def main(what: str) -> None:
    with System() as system:
        if what == "forever":
            while True:
                rehearse(call_plan(gicv3(512)), system)
        configurations = {**ACCEPTED[int(what)], **REFUSED[int(what)]}
        outcomes = {
            name: (
                outcome(rehearse(call_plan(configuration), system)),
                outcome(rehearse(call_plan(configuration, vcpus=representative_vcpus(configuration)), system)),
            )
            for name, configuration in configurations.items()
        }
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
