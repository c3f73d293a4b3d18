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
several versions of vgicmgr, and a finding's former names count as well, where its present one is not set;
``vgicmgr hook status`` tells of names that are none of :data:`FINDINGS`.
"""

import os
import stat
from collections.abc import Mapping
from enum import Enum

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import PolicyError
from vgicmgr.findings import CATALOGUE, FORMER, Finding, Severity, Stage, Verdict

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICY_FILE = "/etc/vgicmgr/vgicmgr.conf"
MAX_BYTES = 64 << 10
"""The longest policy file that is read, in bytes."""

FINDINGS = frozenset(name for name, entry in CATALOGUE.items() if {Stage.START, Stage.ARRIVAL} & {*entry.stages})
"""The findings that bear on a start or an arrival, as the shipped file shows them."""


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
        raise PolicyError(f"the policy {path} is larger than {MAX_BYTES >> 10} KiB")
    try:
        return parse_policy(content.decode())
    except UnicodeDecodeError:
        raise PolicyError(f"the policy {path} is not UTF-8 text") from None
    except PolicyError as error:
        raise PolicyError(f"the policy {path} cannot be understood: {error.message}") from None


def parse_policy(text: str) -> Policy:
    """The policy that ``text`` says; raises :class:`PolicyError` at the first line that cannot be understood."""
    mode, findings = DEFAULT.mode, {}
    for section, key, value in _entries(text):
        if section == "findings":
            if not _is_name(key):
                raise PolicyError(f"{_quoted(key)} is no finding's name")
            findings[key] = _mode(key, value)
        elif key == "mode":
            mode = _mode(key, value)
        else:
            raise PolicyError(f"unknown key {_quoted(key)} in [hook]")
    present = {FORMER[name]: mode for name, mode in findings.items() if name in FORMER}
    return Policy(mode, present | {name: mode for name, mode in findings.items() if name not in FORMER})


def _entries(text: str) -> "Iterator[tuple[str, str, str]]":
    """Section, key and value of each entry, in the form that :mod:`configparser` reads, which is slow to import.

    A line that is indented deeper than the entry right above it would there continue its value; no value has two lines.
    """
    section, seen = "", set()
    above: int | None = None  # the indentation of an entry in the line above
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", ";")):
            above = None
            continue
        indentation = len(line) - len(line.lstrip())
        if above is not None and indentation > above:
            raise PolicyError(f"line {number} is indented, which makes it part of the value above it")
        if header := _header(stripped):
            section, above, place = header, None, (header, "")
            if section not in ("hook", "findings"):
                raise PolicyError(f"unknown section [{_quoted(section)[1:-1]}]")
        else:
            key, equals, value = map(str.strip, stripped.partition("="))
            if not equals or not key:
                raise PolicyError(f"line {number} is none of a [section], a comment and 'name = value'")
            if not section:
                raise PolicyError(f"line {number} stands before any [section]")
            above, place = indentation, (section, key)
            yield section, key, value
        if place in seen:
            raise PolicyError(f"{_quoted(place[1]) if place[1] else f'[{section}]'} is there twice (line {number})")
        seen.add(place)


def _header(line: str) -> str:
    """The section that the line begins, or empty; what follows the last bracket does not count."""
    return line[1 : line.rfind("]")] if line.startswith("[") and "]" in line else ""


def _is_name(key: str) -> bool:
    """Whether it has the form of a finding's name: lower case words and numbers joined by hyphens."""
    return all(word.isascii() and word.isalnum() and word == word.lower() for word in key.split("-"))


def _mode(key: str, value: str) -> Mode:
    try:
        return Mode(value)
    except ValueError:
        raise PolicyError(f"{_quoted(key)} is {_quoted(value)}, but must be enforce, warn or off") from None


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


_LONGEST = 40
