"""A nested KVM guest that is known to run: the host's own kernel and an initramfs that says ``guest: up``."""

import time

from tests.lab.errors import LabError
from tests.lab.host import Host

UP = "guest: up"
BOOT_SECONDS = 180.0
"""Measured: 5 to 10 on an idle machine; ten times that where many hosts share two cores."""

XML = """\
<domain type='kvm'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>{vcpus}</vcpu>
  <os>
    <type arch='aarch64' machine='{machine}'>hvm</type>
    <kernel>/srv/guest/Image</kernel>
    <initrd>/srv/guest/initramfs.cpio.gz</initrd>
    <cmdline>console=ttyAMA0 panic=-1</cmdline>
  </os>
  <features>
    <gic version='{gic}'/>
  </features>
  <cpu mode='host-passthrough'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-aarch64</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'>
      <source path='{log}'/>
    </serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def xml(name: str = "guest", *, gic: int = 3, vcpus: int = 1, memory_mib: int = 128, machine: str = "virt") -> str:
    """The domain XML of a guest; its console goes to :func:`log` in the host."""
    return XML.format(name=name, gic=gic, vcpus=vcpus, memory_mib=memory_mib, machine=machine, log=log(name))


def log(name: str = "guest") -> str:
    """The file in the host that the guest's console goes to."""
    return f"/var/log/libvirt/qemu/{name}-console.log"


def console(host: Host, name: str = "guest") -> str:
    """What the guest has written to its console."""
    return host.run(["cat", log(name)]).stdout.replace("\r\n", "\n")


def wait_until_up(host: Host, name: str = "guest", seconds: float = BOOT_SECONDS) -> None:
    """Wait until the guest's user space says so; raises :class:`LabError` with its console."""
    deadline = time.monotonic() + seconds
    while UP not in (text := console(host, name)):
        if time.monotonic() > deadline:
            raise LabError(f"{host.name}: guest {name} did not come up in {seconds:g} s\n--- its console ---\n{text}")
        time.sleep(0.3)


def start(host: Host, domain_xml: str, name: str = "guest") -> None:
    """``virsh create`` of a domain, and wait until it is up."""
    host.start_libvirtd()
    path = f"/run/{name}.xml"
    host.push(path, domain_xml)
    host.run(["virsh", "create", path], check=True)
    wait_until_up(host, name)
