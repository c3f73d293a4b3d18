"""What is said while a domain is resolved: who decided what, and what was found. Nobody reads it before the end."""

from vgicmgr.findings import Finding, Severity, finding
from vgicmgr.guest.configuration import Decision, Source


class Refused(Exception):
    """A finding after which the rest cannot be resolved; it stands in the notes."""


class Notes:
    """The decisions, each subject's last one at the place of its first, and the findings in their order."""

    def __init__(self) -> None:
        self._decisions: dict[str, Decision] = {}
        self._findings: list[Finding] = []

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Who decided what."""
        return tuple(self._decisions.values())

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found."""
        return tuple(self._findings)

    def decide(self, subject: str, value: object, source: Source) -> None:
        """Note what ``subject`` came to, and who decided it."""
        self._decisions[subject] = Decision(subject, str(value), source)

    def find(self, name: str, evidence: str, remedy: str = "", *, severity: Severity | None = None) -> None:
        """Note a finding (:func:`vgicmgr.findings.finding`)."""
        self._findings.append(finding(name, evidence, remedy, severity=severity))

    def add(self, *findings: Finding) -> None:
        """Note findings that were made elsewhere."""
        self._findings += findings

    def refuse(self, name: str, evidence: str, remedy: str) -> Refused:
        """Note a finding, and return what to raise: nothing can be resolved after it."""
        self.find(name, evidence, remedy, severity=Severity.ERROR)
        return Refused()
