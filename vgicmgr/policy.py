"""The policy: which findings keep a guest from starting.

``/etc/vgicmgr/vgicmgr.conf`` (INI; ``packaging/vgicmgr.conf`` shows it whole)::

    [hook]
    mode = enforce

    [findings]
    some-finding = warn

``mode`` holds for every finding, an entry under ``[findings]`` for the one it names. ``enforce`` refuses, ``warn`` lets
the guest start and logs, ``off`` does neither; with ``mode = off`` nothing is judged at all. Only an error refuses; a
finding that is a warning is logged, unless ``[findings]`` says ``enforce`` of it by name. No file is ``enforce``; so is
a file that cannot be read or understood, and that is a reason to refuse by itself (:mod:`vgicmgr.hook`), for nobody can
tell what it was meant to allow. Under ``[findings]`` only the form of a name is looked at, so that one file serves
several versions of vgicmgr; ``vgicmgr hook status`` tells of names that are none of :data:`FINDINGS`.
"""

import os
import re
import stat
from collections.abc import Mapping
from enum import Enum

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import PolicyError
from vgicmgr.findings import Finding, Severity, Verdict

POLICY_FILE = "/etc/vgicmgr/vgicmgr.conf"
MAX_BYTES = 1 << 20
"""The longest policy file that is read, in bytes."""

FINDINGS = frozenset(
    {
        "gic-version-unsupported",
        "vcpu-count",
        "ipa-size",
        "pmu-unsupported",
        "cpu-feature-unsupported",
        "sve-vector-length",
        "el1-32bit-unsupported",
        "el1-32bit-features",
        "cpu-model-unsupported",
        "vm-refused",
        "vcpu-refused",
        "gic-refused",
        "its-refused",
        "pmu-refused",
        "group-not-viable",
        "msi-not-isolated",
        "msi-devid-missing",
        "msi-none",
        "msi-vectors",
        "its-device-bits",
        "unsafe-interrupts",
        "vfio-refused",
        "missing-record",
        "record-unreadable",
        "cpu-property-unknown",
        "register-list",
        "register-value",
        "register-dropped",
        "pmu-counters",
        "gic-version",
        "icc-ctlr",
        "its",
        "its-abi-revision",
        "gicd-iidr",
        "gits-typer",
        "steal-time",
        "sve-vector-lengths",
        "memory-map",
        "device-migration",
        "device-migration-unknown",
    }
)
"""The findings that bear on a start or an arrival, as the shipped file shows them."""
_FINDING_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"


class Mode(Enum):
    """What is done about a finding."""

    ENFORCE = "enforce"
    WARN = "warn"
    OFF = "off"


@dataclass(frozen=True)
class Decision:
    """What a verdict comes to: ``refused`` findings keep the guest from starting, ``warned`` ones are logged."""

    refused: tuple[Finding, ...]
    warned: tuple[Finding, ...]


@dataclass(frozen=True)
class Policy:
    """The mode as a whole, and by finding name where it differs."""

    mode: Mode
    findings: Mapping[str, Mode]

    def mode_of(self, finding: Finding) -> Mode:
        """What is done about this finding."""
        return self.findings.get(finding.name, self.mode)

    def decide(self, verdict: Verdict) -> Decision:
        """Which of the findings refuse, and which are only warned of; notes are neither."""
        refused, warned = [], []
        for finding in verdict.findings:
            mode = self.mode_of(finding)
            by_name = finding.severity is Severity.WARNING and finding.name in self.findings
            if mode is Mode.ENFORCE and (finding.severity is Severity.ERROR or by_name):
                refused.append(finding)
            elif finding.severity is not Severity.NOTE and mode is not Mode.OFF:
                warned.append(finding)
        return Decision(tuple(refused), tuple(warned))


DEFAULT = Policy(Mode.ENFORCE, {})
"""Without a policy file."""


def read_policy(path: str = POLICY_FILE) -> Policy:
    """The policy in ``path``; :data:`DEFAULT` when there is no such file.

    Raises :class:`PolicyError` when the file cannot be read (its ``__cause__`` is the :class:`OSError`) or understood.
    """
    try:
        # O_NONBLOCK: a FIFO in its place must not hang a guest's start
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return DEFAULT
    except OSError as error:
        raise PolicyError(f"the policy {path} cannot be read: {os.strerror(error.errno or 0)}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise PolicyError(f"the policy {path} is not a regular file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"the policy {path} cannot be read: {os.strerror(error.errno or 0)}") from error
    finally:
        os.close(fd)
    if len(content) > MAX_BYTES:
        raise PolicyError(f"the policy {path} is larger than {MAX_BYTES >> 20} MiB")
    try:
        return parse_policy(content.decode())
    except UnicodeDecodeError:
        raise PolicyError(f"the policy {path} is not UTF-8 text") from None
    except PolicyError as error:
        raise PolicyError(f"the policy {path} cannot be understood: {error.message}") from None


def parse_policy(text: str) -> Policy:
    """The policy that ``text`` says; raises :class:`PolicyError` for an unknown section, key or value."""
    import configparser

    parser = configparser.RawConfigParser(delimiters=("=",), default_section="", empty_lines_in_values=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise PolicyError(_why(error)) from None
    mode, findings = DEFAULT.mode, {}
    for section in parser.sections():
        if section not in ("hook", "findings"):
            raise PolicyError(f"unknown section [{section}]")
        for key, value in parser.items(section):
            if section == "findings":
                if not re.fullmatch(_FINDING_NAME, key):
                    raise PolicyError(f"'{key}' is no finding's name")
                findings[key] = _mode(key, value)
            elif key == "mode":
                mode = _mode(key, value)
            else:
                raise PolicyError(f"unknown key '{key}' in [hook]")
    return Policy(mode, findings)


def _mode(key: str, value: str) -> Mode:
    try:
        return Mode(value)
    except ValueError:
        raise PolicyError(f"'{key}' is '{value}', but must be enforce, warn or off") from None


def _why(error: Exception) -> str:
    """The message in one line; those of configparser have several."""
    return " ".join(str(error).split())
