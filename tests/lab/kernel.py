"""Debian's kernels: the image, and an initramfs with the modules a host needs."""

import gzip
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.lab import initramfs, modules
from tests.lab.cache import entry, progress
from tests.lab.debian import Archive, unpack
from tests.lab.errors import BuildError
from tests.lab.root import make_image
from tests.lab.spec import Release

AT_BOOT = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "virtio_net", "crc32c_generic", "ext4")
"""Loaded before the root is mounted; ext4 asks for crc32c by an alias, of which the generic one answers everywhere."""

AT_HAND = (
    "tun", "macvtap", "vhost_net", "bridge", "overlay", "9p", "9pnet_virtio", "nvme", "e1000e", "igb", "igbvf",
    "vfio_pci", "vfio_iommu_type1", "iommufd", "af_packet",
)  # fmt: skip
"""There for modprobe."""

IN_GUEST = ("gpio_keys", "evdev")
"""The power button."""

IN_GUEST_WITH_DEVICES = (*IN_GUEST, "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "virtio_scsi")

DISK_MIB = 16
FIRMWARE_MIB = 64
"""What the virt machine maps for each of its two flash chips; a file must be as large."""


@dataclass(frozen=True)
class Kernel:
    """A release's kernel as QEMU boots it, and the disk with what a nested guest boots."""

    folder: Path

    @property
    def image(self) -> Path:
        """The kernel, uncompressed."""
        return self.folder / "Image"

    @property
    def initramfs(self) -> Path:
        """busybox, modules, the init of the host."""
        return self.folder / "initramfs.cpio"

    @property
    def guest_disk(self) -> Path:
        """An ext4 image, /srv/guest of the host: the same kernel, a guest's initramfs, one with drivers of PCI devices
        (``devices.cpio.gz``), an empty disk (``disk.img``), UEFI firmware and its variables (``code.fd``, ``vars.fd``).
        """
        return self.folder / "guest.ext4"

    @property
    def version(self) -> str:
        """What ``uname -r`` says in it."""
        return (self.folder / "version").read_text()


def kernel(release: Release, page_kib: int = 4) -> Kernel:
    """The kernel of a release with pages of this size, from the cache or built."""
    flavour = "arm64" if page_kib == 4 else f"arm64-{page_kib}k"
    sources = (Path(__file__), Path(initramfs.__file__), initramfs.GUEST_INIT)
    recipe: tuple[str | bytes, ...] = (release, flavour, *(source.read_bytes() for source in sources))
    return Kernel(entry(f"kernel-{release}-{flavour}", recipe, partial(_build, release, flavour)))


def packages(archive: Archive, flavour: str) -> list[str]:
    """The packages that Debian's kernel of a flavour stands for today: one, or what it has been split into."""
    whole = f"linux-image-{flavour}"
    found: dict[str, None] = {}

    def follow(package: str) -> None:
        for name in archive.depends(package):
            if re.fullmatch(rf"linux-(image|binary|modules)-\d.*-{flavour}", name) and name not in found:
                found[name] = None
                follow(name)

    follow(whole)
    if not found:
        raise BuildError(f"{whole} of {archive.release} leads to no kernel package")
    return list(found)


def _build(release: Release, flavour: str, folder: Path) -> None:
    archive = Archive(release)
    tree = folder / "tree"
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "lib").symlink_to("usr/lib")
    debs = archive.alone([*packages(archive, flavour), "busybox-static", "qemu-efi-aarch64"], folder)
    progress(f"{release} ({flavour}): kernel, its modules and initramfs")
    unpack(debs, tree)
    images = [*tree.glob("boot/vmlinuz-*"), *tree.glob("usr/lib/modules/*/vmlinuz")]
    if len(images) != 1:
        raise BuildError(f"{release}: expected one kernel image, found {len(images)}")
    images[0].rename(folder / "Image")
    [modules_folder] = tree.glob("usr/lib/modules/*")
    (folder / "version").write_text(modules_folder.name)
    found = modules.find(modules_folder)
    [busybox] = [path.read_bytes() for path in (tree / "bin/busybox", tree / "usr/bin/busybox") if path.exists()]
    (folder / "initramfs.cpio").write_bytes(
        initramfs.for_kernel(
            modules_folder.name,
            loaded=[found[name] for name in closure(AT_BOOT, found)],
            at_hand=[found[name] for name in closure(AT_HAND, found)],
            busybox=busybox,
        )
    )
    guest = folder / "guest"
    guest.mkdir()
    shutil.copy(folder / "Image", guest)
    for name, wanted in (("initramfs.cpio.gz", IN_GUEST), ("devices.cpio.gz", IN_GUEST_WITH_DEVICES)):
        in_guest = [found[module] for module in closure(wanted, found)]
        (guest / name).write_bytes(gzip.compress(initramfs.for_guest(busybox, in_guest), mtime=0))
    shutil.copy(tree / "usr/share/qemu-efi-aarch64/QEMU_EFI.fd", guest / "code.fd")
    for name, mib in (("code.fd", FIRMWARE_MIB), ("vars.fd", FIRMWARE_MIB), ("disk.img", DISK_MIB)):
        with (guest / name).open("ab") as file:
            file.truncate(mib << 20)
    make_image(guest, folder / "guest.ext4")
    for deb in debs:
        deb.unlink()
    shutil.rmtree(guest)
    shutil.rmtree(tree)


def closure(wanted: Iterable[str], found: Mapping[str, modules.Module]) -> list[str]:
    """The wanted modules that are not built in, and what they need, in an order to load them in."""
    needs: dict[str, list[str]] = {}
    pending = [name for name in wanted if name in found]
    while pending:
        name = pending.pop()
        if name not in needs:
            needs[name] = found[name].depends()
            pending += [needed for needed in needs[name] if needed in found]
    return modules.load_order(wanted, needs)
