"""The table. Pure."""

from collections.abc import Sequence

from tests.lab.matrix.run import Outcome


def row(outcome: Outcome) -> str:
    """A move: agreement, what was said and what happened."""
    word = "agree" if outcome.agreed else ("FALSE YES" if outcome.verdict else "FALSE NO")
    lines = [
        f"{word}  {outcome.case.name}",
        f"    gate ({outcome.seconds:.1f} s): {_SAID[outcome.verdict]}  {outcome.reason}".rstrip(),
        f"    happened: {'arrived' if outcome.arrived else 'failed'}  {' '.join(outcome.error.split())}".rstrip(),
        *_life(outcome),
        f"    documents: {_SAID[outcome.document]}  {outcome.document_reason[:300]}".rstrip(),
        f"    libvirt's own checks: {'let it copy' if outcome.copying else 'nothing was copied'}; "
        f"{outcome.took:.0f} s in all",
    ]
    return "\n".join(lines)


def _life(outcome: Outcome) -> list[str]:
    if outcome.rate is None:
        return []
    msis = "" if outcome.msis is None else f", {outcome.msis} MSIs came"
    return [f"    its seconds to the host's: {outcome.rate:.2f}{msis}"]


_SAID = {True: "yes", False: "no", None: "not judged"}


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table for the documentation: a line each, with the gate's reason, or else QEMU's or libvirt's words."""
    lines = ["| move | gate | documents | happened | reason |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        reason = outcome.reason.partition(" here: ")[2].partition(" [")[0] or outcome.error.partition(" | QEMU: ")[0]
        cells = (
            outcome.case.name,
            _SAID[outcome.verdict] + ("" if outcome.agreed else " (**wrong**)"),
            _SAID[outcome.document],
            "arrived" if outcome.arrived else "failed",
            _shortened(" ".join(reason.split())).replace("|", "\\|"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 160


def counts(outcomes: Sequence[Outcome], troubles: Sequence[str]) -> str:
    """The counts at the end."""
    judged = [outcome for outcome in outcomes if outcome.verdict is not None]
    agreed = sum(outcome.agreed for outcome in judged)
    false_yes = sum(outcome.verdict is True and not outcome.arrived for outcome in judged)
    false_no = sum(outcome.arrived and outcome.verdict is False for outcome in judged)
    documents = sum(outcome.document == outcome.arrived for outcome in outcomes)
    foretold = sum(outcome.document is not None for outcome in outcomes)
    arrived = sum(outcome.arrived for outcome in outcomes)
    return (
        f"{len(outcomes)} moves, {len(judged)} judged: {agreed} agreed, {false_yes} false yes, {false_no} false no "
        f"({arrived} arrived, {len(outcomes) - arrived} did not; {len(troubles)} could not be tried); "
        f"by documents alone {documents} of {foretold} agreed"
    )
