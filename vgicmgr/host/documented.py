"""A host by its document (``vgicmgr check-host --format json``): read into values, and asked as a kernel is.

Members that older programs did not write are not known (None); everything else that is used is checked here.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import HostDocumentError, VgicmgrError
from vgicmgr.host.capabilities import (
    ITS,
    PMU,
    VCPU,
    CoreType,
    GICv2,
    GICv3,
    HostCapabilities,
    KernelLog,
    Machine,
    with_iidr_revision,
)
from vgicmgr.host.document import KIND, PMU_PROPERTY_SINCE, VERSION
from vgicmgr.host.models import Dependency, Model, Register
from vgicmgr.host.reader import Member, read_json
from vgicmgr.kvm import gicregs
from vgicmgr.kvm.bitfields import Field
from vgicmgr.kvm.refusal import Refusal, register_layout
from vgicmgr.kvm.registers import register_id, register_name
from vgicmgr.kvm.vcpu import register_size
from vgicmgr.qemu.rules import Rules

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Any

    from vgicmgr.qemu.program import QEMUFacts
    from vgicmgr.vfio.assigned import AssignedDevices

_WRITE_ONE = "write one on the host: vgicmgr check-host --format json"
_WRITE_ANEW = "write it anew on the host: vgicmgr check-host --format json"


@dataclass(frozen=True)
class Program:
    """What the program file of an installed QEMU tells; None where it does not."""

    version: tuple[int, int] | None = None
    rules: Rules | None = None
    psci_property: bool | None = None
    release: str = ""


def read_document(content: bytes) -> "DocumentedHost":
    """The host of a file; raises :class:`~vgicmgr.errors.HostDocumentError`."""
    return documented(read_json(content, _damaged))


def documented(document: "Any") -> "DocumentedHost":
    """The host of a document, parsed; raises :class:`~vgicmgr.errors.HostDocumentError`."""
    if not isinstance(document, dict) or document.get("document") != KIND:
        raise HostDocumentError("the file is not a host capabilities document", _WRITE_ONE)
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        raise HostDocumentError(f"the host capabilities document is not of version {VERSION}", _WRITE_ONE)
    whole = Member(document, failure=_damaged)
    migration = whole.find("migration")
    return DocumentedHost(
        capabilities=_capabilities(whole),
        models=None if migration is None else _models(migration),
        programs={} if migration is None else _programs(migration),
        refusing_pmu_off=None if migration is None else _refusing_pmu_off(migration),
    )


def _damaged(what: str) -> VgicmgrError:
    return HostDocumentError(what, _WRITE_ANEW)


@dataclass(frozen=True)
class DocumentedHost:
    """A host as its document shows it; meets :class:`~vgicmgr.host.facts.HostFacts`.

    ``models`` is None where registers were not probed. ``refusing_pmu_off`` are the emulators that end when they are
    told ``pmu=off`` where KVM has no PMU, as older documents say it.
    """

    capabilities: HostCapabilities
    models: tuple[Model, ...] | None = None
    programs: Mapping[str, Program] = MappingProxyType({})
    refusing_pmu_off: tuple[str, ...] | None = None

    asked = True

    @property
    def name(self) -> str:
        """As the host calls itself."""
        return self.capabilities.machine.name or "the document's host"

    @property
    def kernel(self) -> str:
        """Kernel release."""
        return self.capabilities.machine.kernel

    @property
    def page_size(self) -> int:
        """In bytes."""
        return self.capabilities.machine.page_size

    @property
    def ipa_bits(self) -> int:
        """KVM_CAP_ARM_VM_IPA_SIZE, or 40."""
        return self.capabilities.ipa_bits

    @property
    def counter_frequency(self) -> int | None:
        """Of the generic timer's counter, in Hz; None where it was not measured."""
        return self.capabilities.counter_frequency

    def capability(self, name: str) -> int:
        """As a VM answered; raises :class:`~vgicmgr.errors.HostDocumentError` where it was not asked."""
        try:
            return self.capabilities.capabilities[name]
        except KeyError:
            raise HostDocumentError(f"the document of {self.name} does not say {name}", _WRITE_ANEW) from None

    def gic_versions(self, ipa_bits: int) -> frozenset[int]:
        """Whatever the VM: KVM makes a GIC or not."""
        del ipa_bits
        return frozenset(self.capabilities.gic_versions) & {2, 3}

    def its(self, ipa_bits: int) -> bool:
        """Whatever the VM."""
        del ipa_bits
        return self.capabilities.its is not None

    @property
    def sve_vector_lengths(self) -> tuple[int, ...]:
        """Of a vCPU with all features."""
        return self.capabilities.vcpu.sve_vector_lengths if self.capabilities.vcpu else ()

    @property
    def redistributor_regions(self) -> bool:
        """KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION."""
        return self.capabilities.gicv3 is not None and self.capabilities.gicv3.redistributor_regions

    @property
    def gits_typer(self) -> int | None:
        """GITS_TYPER."""
        return self.capabilities.its.gits_typer if self.capabilities.its else None

    @property
    def msi_devid(self) -> bool | None:
        """KVM_CAP_MSI_DEVID of a VM with an ITS."""
        return self.capabilities.its.msi_devid if self.capabilities.its else None

    @property
    def direct_injection(self) -> str:
        """By the kernel log."""
        log = self.capabilities.log
        return (log.gicv4_version or "") if log.gicv4 else ""

    def midrs(self, cpus: Collection[int]) -> Mapping[int, int]:
        """Of the CPUs that were online."""
        types = self.capabilities.machine.core_types
        return {cpu: core.midr for core in types for cpu in core.cpus if not cpus or cpu in cpus}

    def takes_target(self, target: str) -> bool | None:
        """By the cores' MIDR_EL1, since a core's own target and the generic one are taken.

        (``arch/arm64/kvm/arm.c``, kvm_vcpu_set_target; ``guest.c``, kvm_target_cpu.) Where the cores differ, it
        depends on the one that QEMU runs on.
        """
        if target == "KVM_ARM_TARGET_GENERIC_V8":
            return True
        own = {_TARGETS.get(_part(core.midr)) for core in self.capabilities.machine.core_types}
        if not own:
            tried = self.capabilities.targets
            return None if tried is None else target in tried
        if target in own:
            return True if len(own) == 1 else None
        return False

    def assigned(self, addresses: Iterable[str]) -> "AssignedDevices | None":
        """None: a document does not tell of devices."""
        del addresses
        return None

    def qemu(self, emulator: str) -> "QEMUFacts":
        """The QEMU of this path; where the guest has none (an empty path), the first. Of others nothing is known."""
        from vgicmgr.qemu.program import KnownQEMU

        program = self.programs.get(emulator or next(iter(self.programs), ""), Program())
        return KnownQEMU(program.version, program.rules, program.psci_property, program.release)

    def refuses_pmu_off(self, emulator: str) -> bool | None:
        """Whether this QEMU ends when it is told ``pmu=off`` where KVM has no PMU; None where that is not known."""
        program = self.programs.get(emulator)
        if program is not None and program.version is not None:
            return program.version >= PMU_PROPERTY_SINCE
        if program is None or self.refusing_pmu_off is None:
            return None
        return emulator in self.refusing_pmu_off

    def destination(self, features: Sequence[str], target: str, gic_version: int, its: bool) -> "DocumentedVCPU":
        """The host as the destination of a guest with these KVM_ARM_VCPU_* features, in whatever order.

        ``target`` is a KVM_ARM_TARGET_* or empty, ``gic_version`` 0 where the GIC is not in the kernel. Whether the
        host gives such a guest is to be asked before. Raises :class:`~vgicmgr.errors.HostDocumentError` where the
        document does not tell of such a vCPU.
        """
        if self.models is None:
            raise HostDocumentError(f"the document of {self.name} does not tell of its registers", _WRITE_ANEW)
        if target and self.takes_target(target) is not True:
            raise HostDocumentError(f"the document of {self.name} does not tell of a vCPU with {target}")
        if gic_version and gic_version not in self.gic_versions(0):
            raise HostDocumentError(f"the document of {self.name} does not tell of a GICv{gic_version}")
        model = next((one for one in self.models if sorted(one.features) == sorted(set(features))), None)
        if model is None:
            raise HostDocumentError(
                f"the document of {self.name} does not tell of a vCPU with {', '.join(features)}", _WRITE_ANEW
            )
        gic = {2: self.capabilities.gicv2, 3: self.capabilities.gicv3}.get(gic_version)
        has_its = its and gic_version == 3
        return DocumentedVCPU(self, model, gic_version, gic, self.capabilities.its if has_its else None)


_TARGETS = {0x41_D03: "KVM_ARM_TARGET_CORTEX_A53", 0x41_D07: "KVM_ARM_TARGET_CORTEX_A57"}
"""By implementer and part number."""


def _part(midr: int) -> int:
    return (midr >> 24 & 0xFF) << 12 | midr >> 4 & 0xFFF


@dataclass(frozen=True)
class DocumentedVCPU:
    """What a document says of a vCPU and its GIC: asked as a VM of the host is that a guest is to arrive on."""

    host: DocumentedHost
    model: Model
    gic_version: int
    gic: GICv2 | GICv3 | None
    translation: ITS | None

    @property
    def features(self) -> tuple[str, ...]:
        """KVM_ARM_VCPU_*."""
        return self.model.features

    @property
    def sve_vector_lengths(self) -> tuple[int, ...]:
        """All that there are, in bits."""
        return self.model.sve

    @property
    def ids(self) -> tuple[int, ...]:
        """The registers in QEMU's list there, ascending."""
        return tuple(sorted(self.model.registers))

    def first_values(self) -> tuple[tuple[int, int], ...]:
        """The registers and the values that a guest booted there has."""
        return tuple((number, self.model.registers[number].value) for number in self.ids)

    registers = first_values

    def refused(self, registers: Sequence[tuple[int, int]]) -> tuple[Refusal, ...]:
        """The registers that are there and do not take their value, field by field."""
        gone = self._gone(dict(registers))
        found = []
        for number, value in registers:
            here = self.model.registers.get(number)
            if here is None:
                continue
            if number in gone:
                found.append(Refusal(number, here.value, value, (), gone[number]))
            elif (fields := _refused_fields(number, here, value)) is not None:
                found.append(Refusal(number, here.value, value, fields, "as probed"))
        incoming = dict(registers)
        for number in sorted(gone.keys() & self.model.registers.keys() - incoming.keys()):
            # QEMU writes what only the host lists, too, as it is there (write_list_to_kvmstate)
            value = self.model.registers[number].value
            found.append(Refusal(number, value, value, (), gone[number]))
        return tuple(found)

    def _gone(self, values: Mapping[int, int]) -> dict[int, str]:
        """The registers that are there until the guest's ID registers are written, and why they go.

        QEMU writes in ascending order of the ids, so that those before have been written already.
        """
        found = {}
        for rule in self.model.depends or ():
            layout, here = register_layout(rule.register), self.model.registers.get(rule.register)
            if layout is None or here is None or rule.register not in values:
                continue
            field = next((field for field in layout.all_fields if field.name == rule.field), None)
            if field is None or not _raw(field, here.value) != _raw(field, values[rule.register]) == rule.value:
                continue
            for number in rule.gone:
                if number > rule.register:
                    found[number] = f"not there with {register_name(rule.register)}.{rule.field} of {rule.value}"
        return found

    def pmu_counters(self, wanted: int) -> int:
        """As many as ``wanted``, or where that is more than the kernel takes, its own number."""
        return wanted if self.model.pmu_counters is None else min(wanted, self.model.pmu_counters)

    def counter_frequency(self) -> int | None:
        """As the host's."""
        return self.host.counter_frequency

    def icc_ctlr_el1(self) -> int | None:
        """ICC_CTLR_EL1 of a GICv3."""
        return self.gic.icc_ctlr_el1 if isinstance(self.gic, GICv3) else None

    def gicd_iidr(self) -> int | None:
        """GICD_IIDR, if the GIC is in the kernel."""
        return self.gic.gicd_iidr if self.gic else None

    def gits_iidr(self) -> int | None:
        """GITS_IIDR, if there is an ITS."""
        return self.translation.gits_iidr if self.translation else None

    def gits_typer(self) -> int | None:
        """GITS_TYPER, if there is an ITS."""
        return self.translation.gits_typer if self.translation else None

    def refuses_icc_ctlr_el1(self, value: int) -> str:
        """SEIS and A3V must be the host's, PRIbits and IDbits at most its own (vgic-sys-reg-v3.c, set_gic_ctlr)."""
        here, guest = (
            {field.name: field.of(number) for field in gicregs.ICC_CTLR_EL1.fields}
            for number in (self.icc_ctlr_el1() or 0, value)
        )
        same = all(here[name] == guest[name] for name in ("SEIS", "A3V"))
        no_more = all(guest[name] <= here[name] for name in ("PRIbits", "IDbits"))
        return "" if same and no_more else "EINVAL, by rule"

    def refuses_gicd_iidr(self, value: int) -> str:
        """By the revisions that the kernel was found to take."""
        if self.gic is None:
            return ""
        taken = (with_iidr_revision(self.gic.gicd_iidr, revision) for revision in self.gic.iidr_revisions)
        return "" if value in taken else "as probed"

    def refuses_gits_iidr(self, value: int) -> str:
        """By the ABI revisions that the kernel was found to take."""
        revision = value >> 12 & 0xF
        return "" if self.translation and revision in self.translation.abi_revisions else "as probed"


def _refused_fields(number: int, here: Register, value: int) -> tuple[Field, ...] | None:
    """The fields that refuse their value; None where the register takes it, none where no field tells."""
    if here.anything or here.value == value:
        return None
    layout = register_layout(number)
    if layout is None or value >> layout.width:
        return ()
    differing = layout.differing_fields(here.value, value)
    if here.values is not None:
        if value in here.values:
            return None
        return tuple(field for field in differing if _alone(field, here, value) not in (here.value, *here.values))
    taken = dict(here.fields)
    refused = tuple(
        field
        for field in differing
        if field.name not in taken or (taken[field.name] and _raw(field, value) not in taken[field.name])
    )
    return refused or None


def _alone(field: Field, here: Register, value: int) -> int:
    """The register's value with this field of another."""
    return here.value & ~field.mask | value & field.mask


def _raw(field: Field, value: int) -> int:
    """The field's bits, as an unsigned number."""
    return (value & field.mask) >> field.lsb


# The members of a document, with the bounds of their values

_FEATURE = "KVM_ARM_VCPU_[A-Z0-9_]{1,48}"
_CAPABILITY = "KVM_CAP_[A-Z0-9_]{1,48}"
_TARGET = "KVM_ARM_TARGET_[A-Z0-9_]{1,48}"
_REGISTER_NAME = r"[A-Za-z0-9_\[\] ]{1,48}"
_FIELD_NAME = r"[A-Za-z0-9_\[\]:]{1,32}"
_PATH = "/.{1,4095}"
_SIGNED_32_BITS = (-(1 << 31), (1 << 31) - 1)


def _optional(member: Member | None, read: "Callable[[Member], Any]") -> "Any":
    return None if member is None or member.null else read(member)


def _capabilities(whole: Member) -> HostCapabilities:
    host, kvm, gic = whole["host"], whole["kvm"], whole["gic"]
    direct = gic["direct_injection"]
    capabilities = HostCapabilities(
        machine=Machine(
            architecture=host["architecture"].text(32),
            kernel=host["kernel"].text(),
            page_size=_page_size(host["page_size"]),
            core_types=tuple(map(_core_type, host["core_types"].elements(64))),
            name=_optional(host.find("name"), Member.text) or "",
        ),
        log=KernelLog(
            mode=_optional(kvm["mode"], lambda mode: mode.text(32)),
            gicv4=_optional(direct["enabled"], Member.boolean),
            gicv4_version=_optional(direct["gicv4"], lambda version: version.choice("4", "4.1")),
        ),
        api_version=kvm["api_version"].integer(*_SIGNED_32_BITS),
        ipa_bits=kvm["ipa_bits"].integer(32, 56),
        capabilities={
            name: answer.integer(*_SIGNED_32_BITS) for name, answer in kvm["capabilities"].members(512, _CAPABILITY)
        },
        gicv2=_optional(gic["v2"], _gicv2),
        gicv3=_optional(gic["v3"], _gicv3),
        gicv5=any(version.integer(2, 5) == 5 for version in gic["versions"].elements(8)),
        its=_optional(whole["its"], _its),
        pmu=_optional(whole["pmu"], _pmu),
        vcpu=_optional(whole["vcpu"], _vcpu),
        targets=_optional(kvm.find("targets"), lambda targets: _texts(targets, 16, _TARGET)),
        counter_frequency=_optional(host.find("counter_frequency"), lambda hz: hz.integer(1, 100_000_000_000)),
        unanswered=tuple(text.text(2000) for text in whole["unanswered"].elements(64)),
    )
    if {version.integer(2, 5) for version in gic["versions"].elements(8)} != set(capabilities.gic_versions):
        raise gic["versions"].error("differs from the GICs that the document shows")
    return capabilities


def _page_size(member: Member) -> int:
    size = member.integer(4096, 65536)
    if size & size - 1:
        raise member.error("is not a power of two")
    return size


def _core_type(member: Member) -> CoreType:
    return CoreType(
        member["midr_el1"].register(64), tuple(cpu.integer(0, 65535) for cpu in member["cpus"].elements(65536))
    )


def _gicv2(member: Member) -> GICv2:
    return GICv2(**_gic_members(member))


def _gicv3(member: Member) -> GICv3:
    return GICv3(
        **_gic_members(member),
        icc_ctlr_el1=member["icc_ctlr_el1"].register(64),
        redistributor_regions=member["redistributor_regions"].boolean(),
        line_level=member["line_level"].boolean(),
        save_pending_tables=member["save_pending_tables"].boolean(),
    )


def _gic_members(member: Member) -> "dict[str, Any]":
    return {
        "max_vcpus": member["max_vcpus"].integer(1, 65536),
        "max_intids": member["max_intids"].integer(32, 65536),
        "gicd_iidr": member["gicd_iidr"].register(32),
        "iidr_revisions": _revisions(member["iidr_revisions"]),
        "gicd_typer": member["gicd_typer"].register(32),
        "registers": member["registers"].boolean(),
    }


def _revisions(member: Member) -> tuple[int, ...]:
    return tuple(revision.integer(0, 15) for revision in member.elements(16))


def _its(member: Member) -> ITS:
    return ITS(
        gits_iidr=member["gits_iidr"].register(32),
        abi_revisions=_revisions(member["abi_revisions"]),
        gits_typer=member["gits_typer"].register(64),
        registers=member["registers"].boolean(),
        save_tables=member["save_tables"].boolean(),
        restore_tables=member["restore_tables"].boolean(),
        reset=member["reset"].boolean(),
        msi_devid=member["msi_devid"].boolean(),
    )


def _pmu(member: Member) -> PMU:
    return PMU(
        interrupt=member["interrupt"].boolean(),
        filter=member["filter"].boolean(),
        choice=member["choice"].boolean(),
        counter_limit=member["counter_limit"].boolean(),
        counters=member["counters"].integer(0, 31),
    )


def _vcpu(member: Member) -> VCPU:
    return VCPU(
        features=_texts(member["features"], 64, _FEATURE),
        sve_vector_lengths=_vector_lengths(member["sve_vector_lengths"]),
        steal_time=member["steal_time"].boolean(),
        firmware=tuple(
            (name, value.register(64)) for name, value in member["firmware_registers"].members(256, _REGISTER_NAME)
        ),
        listed_registers=member["listed_registers"].integer(0, 65536),
        migrated_registers=member["migrated_registers"].integer(0, 65536),
    )


def _texts(member: Member, most: int, pattern: str) -> tuple[str, ...]:
    return tuple(text.text(4096, pattern) for text in member.elements(most))


def _vector_lengths(member: Member) -> tuple[int, ...]:
    lengths = tuple(length.integer(128, 2048) for length in member.elements(16))
    if any(length % 128 for length in lengths) or list(lengths) != sorted(set(lengths)):
        raise member.error("is not a list of SVE vector lengths in ascending order")
    return lengths


def _programs(migration: Member) -> dict[str, Program]:
    """From ``emulators`` the rules alone; from ``programs``, or an object in their place, all that there is."""
    found = {}
    for source in filter(None, (migration["emulators"], migration.find("programs"))):
        for path, member in source.members(64, _PATH):
            found[path] = _program(member) if member.is_object else Program(rules=_rules(member))
    return found


def _program(member: Member) -> Program:
    return Program(
        version=_optional(member.find("version"), _version),
        rules=_optional(member.find("rules"), _rules),
        psci_property=_optional(member.find("psci_property"), Member.boolean),
        release=_optional(member.find("release"), _release) or "",
    )


def _version(member: Member) -> tuple[int, int]:
    major, _, minor = member.text(7, r"\d{1,3}\.\d{1,3}").partition(".")
    return int(major), int(minor)


def _release(member: Member) -> str:
    return member.text(40, r"\d{1,3}\.\d{1,3}[!-~]*")


def _rules(member: Member) -> Rules:
    return Rules(member.choice(*(rules.value for rules in Rules)))


def _refusing_pmu_off(migration: Member) -> tuple[str, ...] | None:
    member = migration.find("refusing_pmu_off")
    return None if member is None else _texts(member, 64, _PATH)


def _models(migration: Member) -> tuple[Model, ...]:
    return tuple(map(_model, migration["vcpus"].elements(256)))


def _model(member: Member) -> Model:
    registers: dict[int, Register] = {}
    for name, register in member["registers"].members(4096, _REGISTER_NAME):
        number = _id(name, register)
        if number in registers:
            raise register.error("is there twice")
        registers[number] = _register(number, register)
    depends = member.find("depends")
    return Model(
        features=_texts(member["features"], 64, _FEATURE),
        sve=_vector_lengths(member["sve_vector_lengths"]),
        pmu_counters=_optional(member.find("pmu_counters"), lambda counters: counters.integer(0, 31)),
        registers=registers,
        depends=None if depends is None else tuple(map(_dependency, depends.elements(4096))),
    )


def _id(name: str, member: Member) -> int:
    try:
        number = register_id(name)
    except KeyError:
        raise member.error("is not called as a register is") from None
    return number


def _register(number: int, member: Member) -> Register:
    bits = min(8 * register_size(number), 64)
    value, accepts, values = member["value"].register(bits), member["accepts"], member.find("values")
    if not accepts.is_object:
        accepts.choice("anything")
        return Register(value, anything=True)
    return Register(
        value,
        fields=tuple((name, _field_values(taken)) for name, taken in accepts.members(64, _FIELD_NAME)),
        values=None if values is None else tuple(one.register(bits) for one in values.elements(256)),
    )


def _field_values(member: Member) -> tuple[int, ...]:
    """No values are any value. A program that knows other fields may have written the document."""
    if not member.is_list:
        member.choice("anything")
        return ()
    values = tuple(value.integer(0, (1 << 64) - 1) for value in member.elements(4096))
    if not values:
        raise member.error("is empty")
    return values


def _dependency(member: Member) -> Dependency:
    register = member["register"]
    return Dependency(
        register=_id(register.text(48, _REGISTER_NAME), register),
        field=member["field"].text(32, _FIELD_NAME),
        value=member["value"].integer(0, (1 << 64) - 1),
        gone=_ids(member["gone"]),
        new=_ids(member["new"]),
    )


def _ids(member: Member) -> tuple[int, ...]:
    return tuple(_id(name.text(48, _REGISTER_NAME), name) for name in member.elements(4096))
