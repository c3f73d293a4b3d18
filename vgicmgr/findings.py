"""Findings and verdicts: what was found, how bad it is, and what to do about it."""

from enum import Enum

from vgicmgr.dataclass import dataclass


class Severity(Enum):
    """How much a finding weighs."""

    ERROR = "error"
    """It will not work."""
    WARNING = "warning"
    """It works, but somebody should know."""
    NOTE = "note"
    """Worth saying, nothing to do."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth saying.

    ``name`` is stable (policies refer to it): lower case words joined by hyphens. ``evidence`` is one sentence that
    names the wish and what stands in the way, with the register's or attribute's proper name; ``remedy`` is what to do.
    """

    name: str
    severity: Severity
    evidence: str
    remedy: str = ""

    def as_document(self) -> dict[str, str]:
        """The finding as a member of a JSON document."""
        return {
            "name": self.name,
            "severity": self.severity.value,
            "evidence": self.evidence,
            "remedy": self.remedy,
        }

    def __str__(self) -> str:
        return f"{self.evidence} [{self.name}]" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Verdict:
    """The findings of one question, and yes or no."""

    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing found is an error."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)
