"""Host capabilities for the unit tests, made up to show every kind of value; real ones are in the lab's tests."""

from vgicmgr.dataclass import replace
from vgicmgr.host.capabilities import ITS, PMU, VCPU, CoreType, GICv2, GICv3, HostCapabilities, KernelLog, Machine
from vgicmgr.host.probe import CAPABILITIES

ROOMY = HostCapabilities(
    machine=Machine("aarch64", "6.12.0", 4096, (CoreType(0x413FD0C1, (0, 1, 3)),)),
    log=KernelLog("VHE", gicv4=True, gicv4_version="4.1"),
    api_version=12,
    ipa_bits=48,
    capabilities=dict.fromkeys(CAPABILITIES, 1),
    gicv2=GICv2(8, 1024, 0x4B00343B, (2, 3), 0x1F, registers=True),
    gicv3=GICv3(
        512,
        1024,
        0x4B00343B,
        (2, 3),
        0x7A001F,
        registers=True,
        icc_ctlr_el1=0x400,
        redistributor_regions=True,
        line_level=True,
        save_pending_tables=True,
    ),
    its=ITS(
        0x4B00043B,
        (0,),
        0x1EF71,
        registers=True,
        save_tables=True,
        restore_tables=True,
        reset=True,
        msi_devid=True,
    ),
    pmu=PMU(interrupt=True, filter=True, choice=True, counter_limit=False, counters=6),
    vcpu=VCPU(
        ("KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_SVE"),
        (128, 256),
        steal_time=True,
        firmware=(("KVM_REG_ARM_PSCI_VERSION", 0x10001),),
        listed_registers=400,
        migrated_registers=250,
    ),
)
"""A host that has everything."""

GICV2_ONLY = replace(ROOMY, gicv3=None, its=None)
BARE = replace(
    ROOMY,
    log=KernelLog(),
    capabilities=dict.fromkeys(CAPABILITIES, 0),
    gicv2=None,
    gicv3=None,
    its=None,
    pmu=None,
    vcpu=None,
)
"""A kernel that gives nothing."""
