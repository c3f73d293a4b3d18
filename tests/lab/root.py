"""A host's root file system: Debian packages unpacked, and the few files their scripts would have written.

No arm64 program is run to make it: so there is no binfmt, no container and no loop mount.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.lab import command
from tests.lab.cache import entry, progress
from tests.lab.debian import Archive, native_architecture, unpack
from tests.lab.spec import Release

PACKAGES = (
    "base-files", "base-passwd", "bash", "busybox-static", "coreutils", "diffutils", "findutils", "gawk", "grep",
    "iproute2", "kmod", "libc-bin", "libvirt-clients", "libvirt-daemon", "libvirt-daemon-driver-qemu",
    "libxml2-utils", "pciutils", "procps", "python3", "python3-hypothesis", "python3-jsonschema", "python3-libvirt",
    "python3-lxml", "python3-pytest", "qemu-system-arm", "qemu-utils", "sed", "strace", "tar", "util-linux",
)  # fmt: skip

NOT_IN_BOOKWORM = ("libvirt-daemon-common",)
"""Where libvirt's packages have been split since."""

UNUSED = (
    "usr/bin/qemu-system-arm",  # libvirt would probe it too, for seconds
    "usr/lib/python3*/test",
    "usr/lib/python3*/idlelib",
    "usr/lib/python3*/lib2to3",
    "usr/share/qemu/edk2-*",
    "usr/share/AAVMF",
    "usr/share/qemu-efi-*",
    "usr/lib/aarch64-linux-gnu/dri",
    "usr/lib/aarch64-linux-gnu/libLLVM*",
    "usr/lib/aarch64-linux-gnu/gstreamer-1.0",
)

LIBVIRTD_CONF = """\
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
log_filters = "3:util 3:cpu"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""
"""The host's own host_uuid is added when it starts."""

QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
namespaces = []
stdio_handler = "file"
"""

ADDED = {
    "passwd": "libvirt-qemu:x:64055:104:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin\n",
    "group": "kvm:x:104:libvirt-qemu\nlibvirt:x:105:\ntss:x:106:\nlibvirt-qemu:x:64055:\n",
}
"""Users and groups Debian's libvirt wants to exist, though here all is done by root."""

FILES = {
    "etc/fstab": "",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/profile": 'export PATH=/usr/sbin:/usr/bin PS1="\\h:\\w# "\n',
    "etc/libvirt/libvirtd.conf": LIBVIRTD_CONF,
    "etc/libvirt/qemu.conf": QEMU_CONF,
}

FOLDERS = (
    "dev", "etc/libvirt/hooks", "lab", "mnt", "opt/vgicmgr", "proc", "root", "run", "srv/guest", "sys", "tmp",
    "var/cache/libvirt/qemu", "var/lib/libvirt/images", "var/lib/libvirt/qemu", "var/log/libvirt/qemu",
)  # fmt: skip


def root(release: Release) -> Path:
    """The ext4 image of a release's root file system, from the cache or built."""
    recipe = (release, Path(__file__).read_bytes())
    return entry(f"root-{release}", recipe, partial(_build, release)) / "root.ext4"


def _build(release: Release, folder: Path) -> None:
    names = PACKAGES if release is Release.BOOKWORM else (*PACKAGES, *NOT_IN_BOOKWORM)
    debs = Archive(release).with_dependencies(names)
    (folder / "packages").write_text("".join(f"{deb.stem}\n" for deb in debs))
    tree = folder / "tree"
    lay_out(tree)
    progress(f"{release}: unpacking {len(debs)} packages")
    unpack(debs, tree)
    furnish(tree)
    progress(f"{release}: compiling Python modules")
    _compile(release, tree, folder / "python")
    progress(f"{release}: making the disk image")
    make_image(tree, folder / "root.ext4")
    shutil.rmtree(tree)


def lay_out(tree: Path) -> None:
    """The links every Debian system has, put there before a package can make folders in their place."""
    links = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin", "var/run": "../run",
             "var/lock": "../run/lock"}  # fmt: skip
    for link, target in links.items():
        (tree / link).parent.mkdir(parents=True, exist_ok=True)
        (tree / link).symlink_to(target)
        (tree / link).parent.joinpath(target).mkdir(parents=True, exist_ok=True)


def furnish(tree: Path) -> None:
    """Do what the packages' scripts would have done, as far as a host needs it."""
    for pattern in UNUSED:
        for path in tree.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name in FOLDERS:
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in ("passwd", "group"):
        master = (tree / f"usr/share/base-passwd/{name}.master").read_text()
        (tree / "etc" / name).write_text(master + ADDED[name])
    for name, text in FILES.items():
        (tree / name).write_text(text)
    (tree / "usr/bin/awk").symlink_to("gawk")
    shell = tree / "usr/bin/sh"
    if not shell.exists():
        shell.symlink_to("bash")


def _compile(release: Release, tree: Path, python: Path) -> None:
    """Byte-compile the root's Python by the same release's Python for this machine.

    Emulated, it would take minutes; not done at all, every import in a host would be compiled over and over.
    """
    native = Archive(release, native_architecture())
    [version] = {path.name for path in tree.glob("usr/lib/python3.*")}
    lay_out(python)
    unpack(native.with_dependencies([f"{version}-minimal"]), python)
    loader = next(python.glob("usr/lib*/ld-linux-*.so.*"), None) or next(python.glob("usr/lib/*/ld-linux-*.so.*"))
    libraries = loader.resolve().parent if loader.resolve().name.startswith("ld-") else loader.parent
    triplet = next(python.glob("usr/lib/*-linux-gnu"))

    def compile_folder(folder: str) -> None:
        command.call(
            loader, "--library-path", f"{triplet}:{libraries}", python / "usr/bin" / version, "-E", "-S",
            "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
            "-s", tree, "-p", "/", tree / folder,
            env={"PYTHONHOME": str(tree / "usr")},
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_folder, [f"usr/lib/{version}", "usr/lib/python3/dist-packages"]))
    shutil.rmtree(python)


def make_image(tree: Path, image: Path) -> None:
    """An ext4 image of a folder, with (sparse) room to spare; all of it belongs to root."""
    used = sum(path.lstat().st_size + 4096 for path in tree.rglob("*"))
    mib = used * 11 // 10 // 2**20 + 1024
    # As another user than root, a user namespace makes the files root's own.
    prefix = () if os.geteuid() == 0 else ("unshare", "--map-root-user")
    command.call(*prefix, command.find("mke2fs") or "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal",
                 "-E", "lazy_itable_init=1,nodiscard", "-m", "0", "-d", tree, image, f"{mib}M")  # fmt: skip
