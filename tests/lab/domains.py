"""Domain XML for the lab's tests: one guest that starts everywhere, and what can be asked for beyond it."""

from dataclasses import dataclass

KERNEL = "/srv/guest/Image"
INITRD = "/srv/guest/initramfs.cpio.gz"


@dataclass(frozen=True)
class Guest:
    """What a test asks for; each member is a piece of domain XML as libvirt's users write it."""

    name: str = "guest"
    gic: str = ""
    """``<gic …/>``; empty leaves the choice to libvirt."""
    pmu: str = ""
    cpu: str = "<cpu mode='host-passthrough'/>"
    vcpus: int = 1
    memory: str = "<memory unit='MiB'>128</memory>"
    os_type: str = "<type arch='aarch64' machine='virt'>hvm</type>"
    domain_type: str = "kvm"

    def xml(self) -> str:
        """The whole domain."""
        return f"""\
<domain type='{self.domain_type}'>
  <name>{self.name}</name>
  {self.memory}
  <vcpu>{self.vcpus}</vcpu>
  <os>
    {self.os_type}
    <kernel>{KERNEL}</kernel>
    <initrd>{INITRD}</initrd>
    <cmdline>console=ttyAMA0</cmdline>
  </os>
  <features>
    {self.gic}
    {self.pmu}
  </features>
  {self.cpu}
  <devices>
    <emulator>/usr/bin/qemu-system-aarch64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'>
      <source path='/tmp/{self.name}.console'/>
    </serial>
  </devices>
</domain>
"""
