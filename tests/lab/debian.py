"""Debian's arm64 packages, through an APT of the lab's own: the machine's APT and dpkg are not touched."""

import re
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from tests.lab import command
from tests.lab.cache import directory, entry, locked, progress
from tests.lab.errors import BuildError, Prerequisite
from tests.lab.spec import Release

NO_DOCUMENTS = ("doc", "man", "locale", "info", "icons", "lintian", "bash-completion", "perl5")
"""Folders of /usr/share that no test reads."""


@cache
def mirror() -> str:
    """The Debian mirror this machine's own APT uses; raises Prerequisite where it has none."""
    for uri in command.call("apt-get", "indextargets", "--format", "$(REPO_URI)").splitlines():
        if re.fullmatch(r"https?://.*/debian/?", uri):
            return uri.rstrip("/")
    raise Prerequisite("this machine's APT has no Debian archive: add one to its sources")


@cache
def native_architecture() -> str:
    """This machine's architecture in Debian's words."""
    return command.call("dpkg", "--print-architecture").strip()


@dataclass(frozen=True)
class Archive:
    """One release's packages for one architecture, with the APT state to ask for them."""

    release: Release
    architecture: str = "arm64"

    @property
    def _state(self) -> Path:
        return directory() / "apt" / f"{self.release}-{self.architecture}"

    @property
    def _debs(self) -> Path:
        return directory() / "apt" / "archives"

    def _configuration(self) -> str:
        # Proxies and the like are how this machine reaches a mirror at all; nothing else of its APT is wanted.
        network = [
            line
            for line in command.call("apt-config", "dump").splitlines()
            if re.match(r"Acquire::https?::", line) and not line.endswith('"";')
        ]
        return "\n".join(
            [
                'Dir::Etc::main "/dev/null";',
                'Dir::Etc::parts "/dev/null";',
                'Dir::Etc::preferencesparts "/dev/null";',
                f'Dir::Etc::sourcelist "{self._state}/sources.list";',
                'Dir::Etc::sourceparts "/dev/null";',
                f'Dir::State "{self._state}";',
                f'Dir::State::status "{self._state}/status";',
                f'Dir::Cache "{self._state}/cache";',
                f'Dir::Cache::archives "{self._debs}";',
                f'APT::Architecture "{self.architecture}";',
                f'APT::Architectures {{ "{self.architecture}"; }};',
                'APT::Install-Recommends "false";',
                'APT::Sandbox::User "root";',
                'Acquire::Check-Valid-Until "false";',
                'Acquire::Languages "none";',
                'Acquire::Retries "3";',
                *network,
                "",
            ]
        )

    def apt(self, *argv: str | Path, cwd: Path | None = None) -> str:
        """Run an APT command on this archive; raises :class:`BuildError`."""
        with locked(f"apt-{self.release}-{self.architecture}"):
            return command.call(*argv, env={"APT_CONFIG": str(_updated(self))}, cwd=cwd)

    def update(self) -> Path:
        """Fetch the archive's lists; the path of the APT configuration."""
        for folder in (self._state / "lists/partial", self._state / "cache", self._debs / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        (self._state / "status").write_text("")
        (self._state / "sources.list").write_text(f"deb [signed-by={command.KEYRING}] {mirror()} {self.release} main\n")
        configuration = self._state / "apt.conf"
        configuration.write_text(self._configuration())
        progress(f"{self.release} ({self.architecture}): package lists")
        command.call("apt-get", "update", "-qq", env={"APT_CONFIG": str(configuration)})
        return configuration

    def with_dependencies(self, packages: Iterable[str]) -> list[Path]:
        """The packages and all they depend on, as downloaded .deb files."""
        names = sorted(packages)
        with locked("apt-archives"):
            plan = self.apt("apt-get", "install", "--simulate", "-qq", *names)
            progress(f"{self.release} ({self.architecture}): downloading packages")
            self.apt("apt-get", "install", "--download-only", "-qq", "-y", *names)
        return [self._debs / name for name in planned_files(plan)]

    def alone(self, packages: Iterable[str], into: Path) -> list[Path]:
        """The packages without what they depend on, downloaded into a folder."""
        names = sorted(packages)
        progress(f"{self.release} ({self.architecture}): downloading {' '.join(names)}")
        self.apt("apt-get", "download", "-qq", *names, cwd=into)
        return sorted(into.glob("*.deb"))

    def depends(self, package: str) -> list[str]:
        """The names a package depends on, alternatives as APT lists them."""
        shown = self.apt("apt-cache", "show", "--no-all-versions", package)
        found = re.search(r"^Depends: (.*)$", shown, re.MULTILINE)
        return re.findall(r"(?:^|[,|]) *([a-z0-9][a-z0-9+.-]+)", found[1]) if found else []


@cache
def _updated(archive: Archive) -> Path:
    return archive.update()


def planned_files(plan: str) -> list[str]:
    """The .deb file names in APT's cache of what ``apt-get install --simulate`` says it would install."""
    found = re.findall(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", plan, re.MULTILINE)
    return [
        f"{name.partition(':')[0]}_{quote(version, safe='+~').replace('%3A', '%3a')}_{arch}.deb"
        for name, version, arch in found
    ]


def unpack(debs: Sequence[Path], root: Path) -> None:
    """Unpack packages over each other into a folder, all owned by the caller, without their documents."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda deb: _unpack_one(deb, root), debs))


def _unpack_one(deb: Path, root: Path) -> None:
    excludes = [f"--exclude=./usr/share/{folder}/*" for folder in NO_DOCUMENTS]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as reader:
        done = subprocess.run(
            # Older packages still ship /bin and /lib, which are links to /usr's in the root.
            ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", root, *excludes],
            stdin=reader.stdout, capture_output=True, check=False,
        )  # fmt: skip
    if done.returncode or reader.returncode:
        raise BuildError(f"{deb.name} could not be unpacked: {done.stderr.decode(errors='replace').strip()}")


def headers(release: Release) -> Path:
    """The include folder of the release's kernel headers for arm64 (linux-libc-dev): ``linux/`` and ``asm/``."""

    def build(folder: Path) -> None:
        [deb] = Archive(release).alone(["linux-libc-dev"], folder)
        unpack([deb], folder)
        deb.unlink()
        include = folder / "usr/include"
        asm = next(path for path in include.glob("*/asm/kvm.h") if path.parts[-3].startswith("aarch64")).parent
        if not (include / "asm").exists():
            (include / "asm").symlink_to(asm.relative_to(include))

    return entry(f"headers-{release}", (release,), build) / "usr/include"
