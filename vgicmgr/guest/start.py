"""Whether a domain can start on a host: it is resolved, and on this host's own kernel brought up on a scratch VM."""

from collections.abc import Iterator
from contextlib import contextmanager

from vgicmgr.domain.cpulist import vcpu_cpus
from vgicmgr.domain.domain import Domain
from vgicmgr.findings import Verdict
from vgicmgr.guest.affinity import mixed_cores
from vgicmgr.guest.plan import call_plan, representative_vcpus
from vgicmgr.guest.resolve import Resolution, resolve
from vgicmgr.guest.scratch import ScratchVM
from vgicmgr.host.cpus import on_cpus
from vgicmgr.host.kernel import Kernel

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.guest.configuration import VGICConfiguration
    from vgicmgr.host.facts import HostFacts


def check_start(domain: Domain, host: "HostFacts") -> Verdict:
    """Whether a domain can start on ``host``, and on this host's kernel whether it comes up there.

    Raises :class:`~vgicmgr.kvm.errors.KvmUnavailable` when /dev/kvm cannot be used, and
    :class:`~vgicmgr.kvm.errors.KvmError` when the kernel cannot even be asked what it has.
    """
    if not domain.needs_gic:
        return Verdict()
    resolution = resolve(domain, host)
    return Verdict((*resolution.findings, *_rehearse(resolution, host).findings, *mixed_cores(domain, host)))


def judge_start(domain: Domain) -> Verdict:
    """As :func:`check_start`, on this host."""
    if not domain.needs_gic:
        return Verdict()
    with Kernel() as host:
        return check_start(domain, host)


def _rehearse(resolution: Resolution, host: "HostFacts") -> Verdict:
    """What this host's kernel makes of the calls; nothing where it is another host, or there is no configuration."""
    if resolution.configuration is None or not isinstance(host, Kernel):
        return Verdict()
    with on_cpus(vcpu_cpus(resolution.domain)), scratch_vm(resolution.configuration, host) as scratch:
        return scratch.verdict


@contextmanager
def scratch_vm(
    configuration: "VGICConfiguration", host: "Kernel", *, register_list: bool = False
) -> Iterator[ScratchVM]:
    """The configuration brought up on this host's kernel with its representative vCPUs, as far as it comes."""
    with ScratchVM(host.system, host) as scratch:
        plan = call_plan(configuration, vcpus=representative_vcpus(configuration), register_list=register_list)
        scratch.bring_up(plan)
        yield scratch
