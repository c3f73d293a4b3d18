"""What a host capabilities document says of arrivals: its member ``migration``, written and read. Pure.

Registers and their values are hexadecimal strings. ``accepts`` of a register is ``"anything"``, or an object of its
fields' names and the values each takes besides its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.settings import DomainSettings
from vgicmgr.errors import VgicmgrError
from vgicmgr.host.capabilities import with_iidr_revision
from vgicmgr.host.document import KIND, VERSION
from vgicmgr.kvm import gicregs
from vgicmgr.kvm.registers import register_id, register_name
from vgicmgr.migration.models import Model, Register
from vgicmgr.migration.refusal import Refusal, register_layout
from vgicmgr.qemu.cpu import CPU, has_steal_time, sve_wishes, vcpu_features, vector_lengths
from vgicmgr.qemu.migration import Rules


class HostDocumentError(VgicmgrError):
    """A host capabilities document that cannot be read, or says too little to judge an arrival by."""


def to_member(
    models: Sequence[Model], emulators: Mapping[str, Rules], refusing_pmu_off: Sequence[str] = ()
) -> dict[str, Any]:
    """The member ``migration``: what ``models`` are, and the rules of each emulator by its path.

    ``refusing_pmu_off``: the emulators that take no ``pmu=off`` where KVM has no PMU.
    """
    return {
        "emulators": {path: rules.value for path, rules in emulators.items()},
        "refusing_pmu_off": list(refusing_pmu_off),
        "vcpus": [
            {
                "features": list(model.features),
                "sve_vector_lengths": list(model.sve),
                "pmu_counters": model.pmu_counters,
                "registers": {
                    register_name(number): _register_member(register) for number, register in model.registers.items()
                },
            }
            for model in models
        ],
    }


def _register_member(register: Register) -> dict[str, Any]:
    accepts: str | dict[str, list[int] | str] = "anything"
    if not register.anything:
        accepts = {name: list(values) if values else "anything" for name, values in register.fields}
    return {"value": hex(register.value), "accepts": accepts}


@dataclass(frozen=True)
class DocumentHost:
    """A host as its document shows it, as the destination of a guest with this CPU and GIC.

    Meets :class:`vgicmgr.migration.arrival.Destination`.
    """

    kernel: str
    own_cpu: bool
    gic_version: int
    sve: tuple[int, ...]
    steal_time: bool
    ipa_bits: int
    page_size: int
    most_pmu_counters: int | None
    registers: Mapping[int, Register]
    gic: Mapping[str, Any]
    its: Mapping[str, Any] | None

    @property
    def ids(self) -> tuple[int, ...]:
        """The registers in QEMU's list there, ascending."""
        return tuple(sorted(self.registers))

    def first_values(self) -> tuple[tuple[int, int], ...]:
        """The registers and the values that a guest booted there has."""
        return tuple((number, self.registers[number].value) for number in self.ids)

    def refused(self, registers: Sequence[tuple[int, int]]) -> tuple[Refusal, ...]:
        """The registers that are there and do not take their value, field by field."""
        found = []
        for number, value in registers:
            here = self.registers.get(number)
            if here is None or here.anything or here.value == value:
                continue
            layout = register_layout(number)
            if layout is None:
                found.append(Refusal(number, here.value, value, (), "as probed"))
                continue
            taken = dict(here.fields)
            fields = tuple(
                field
                for field in layout.differing_fields(here.value, value)
                if field.name not in taken
                or (taken[field.name] and (value & field.mask) >> field.lsb not in taken[field.name])
            )
            if fields:
                found.append(Refusal(number, here.value, value, fields, "as probed"))
        return tuple(found)

    def pmu_counters(self, wanted: int) -> int:
        """As many as ``wanted``, or where that is more than the kernel takes, its own number."""
        return wanted if self.most_pmu_counters is None else min(wanted, self.most_pmu_counters)

    def icc_ctlr_el1(self) -> int | None:
        """ICC_CTLR_EL1 of a GICv3."""
        return int(self.gic["icc_ctlr_el1"], 16) if self.gic_version == 3 else None

    def gicd_iidr(self) -> int:
        """GICD_IIDR."""
        return int(self.gic["gicd_iidr"], 16)

    def gits_iidr(self) -> int | None:
        """GITS_IIDR, if there is an ITS."""
        return int(self.its["gits_iidr"], 16) if self.its else None

    def gits_typer(self) -> int | None:
        """GITS_TYPER, if there is an ITS."""
        return int(self.its["gits_typer"], 16) if self.its else None

    def refuses_icc_ctlr_el1(self, value: int) -> str:
        """SEIS and A3V must be the host's, PRIbits and IDbits at most its own (vgic-sys-reg-v3.c, set_gic_ctlr)."""
        here, guest = (gicregs.ICC_CTLR_EL1.decode(number) for number in (self.icc_ctlr_el1() or 0, value))
        same = all(here[name] == guest[name] for name in ("SEIS", "A3V"))
        no_more = all(guest[name] <= here[name] for name in ("PRIbits", "IDbits"))
        return "" if same and no_more else "EINVAL, by rule"

    def refuses_gicd_iidr(self, value: int) -> str:
        """By the revisions that the kernel was found to take."""
        taken = (with_iidr_revision(self.gicd_iidr(), revision) for revision in self.gic["iidr_revisions"])
        return "" if value in taken else "as probed"

    def refuses_gits_iidr(self, value: int) -> str:
        """By the ABI revisions that the kernel was found to take."""
        revision = gicregs.GITS_IIDR.decode(value)["Revision"]
        return "" if self.its and revision in self.its["abi_revisions"] else "as probed"


def host_of(document: Any, settings: DomainSettings, cpu: CPU, *, with_its: bool = True) -> tuple[DocumentHost, Rules]:
    """The host of a document, parsed, for a domain with these settings; and the rules of the QEMU it names.

    Raises :class:`HostDocumentError`.
    """
    if not isinstance(document, dict) or document.get("document") != KIND or document.get("version") != VERSION:
        raise HostDocumentError(
            f"the file is no host capabilities document of version {VERSION}",
            "write one on the host: vgicmgr check-host --format json",
        )
    try:
        return _host(document, settings, cpu, with_its)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        raise HostDocumentError(
            "the host capabilities document does not say what an arrival is judged by",
            "write it anew on the host: vgicmgr check-host --format json",
        ) from None


def _host(document: dict[str, Any], settings: DomainSettings, cpu: CPU, with_its: bool) -> tuple[DocumentHost, Rules]:
    has: Callable[[str], int] = lambda name: int(document["kvm"]["capabilities"].get(name, 0))  # noqa: E731
    features = vcpu_features(cpu, has, aarch32=settings.arch == "armv7l")
    migration = document["migration"]
    model = next((one for one in migration["vcpus"] if tuple(one["features"]) == features), None)
    if model is None or cpu.target:
        raise HostDocumentError(
            f"the document says nothing of a vCPU with {', '.join(features)}"
            + (f" and the model {cpu.model}" if cpu.target else "")
        )
    gic_version = int(settings.gic_version) if settings.gic_version.isdigit() else max(document["gic"]["versions"])
    gic = document["gic"][f"v{gic_version}"]
    if gic is None:
        raise HostDocumentError(f"the host has no GICv{gic_version} for guests")
    emulators = migration["emulators"]
    emulator = settings.emulator if settings.emulator in emulators else next(iter(emulators))
    if (
        cpu.properties.get("pmu") == "off"
        and not has("KVM_CAP_ARM_PMU_V3")
        and emulator in migration.get("refusing_pmu_off", ())  # not in documents of older programs
    ):
        raise HostDocumentError(
            "pmu=off is asked for, but the host's KVM has no PMU for guests, and its QEMU then has none to turn off",
            "boot the guest without <pmu>",
        )
    lengths = tuple(model["sve_vector_lengths"])
    host = DocumentHost(
        kernel=document["host"]["kernel"],
        own_cpu=cpu.own,
        gic_version=gic_version,
        sve=vector_lengths(sve_wishes(cpu), lengths) if lengths else (),
        steal_time=has_steal_time(cpu, settings.machine, has),
        ipa_bits=document["kvm"]["ipa_bits"],
        page_size=document["host"]["page_size"],
        most_pmu_counters=model.get("pmu_counters"),  # not in documents of older programs
        registers={register_id(name): _register(member) for name, member in model["registers"].items()},
        gic=gic,
        its=document["its"] if gic_version == 3 and with_its else None,
    )
    return host, Rules(emulators[emulator])


def _register(member: dict[str, Any]) -> Register:
    accepts = member["accepts"]
    if accepts == "anything":
        return Register(int(member["value"], 16), anything=True)
    return Register(int(member["value"], 16), fields=_fields(accepts))


def _fields(accepts: dict[str, Any]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, () if values == "anything" else tuple(values)) for name, values in accepts.items())
