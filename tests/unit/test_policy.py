"""The policy file, and what a policy makes of a verdict."""

import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vgicmgr.errors import PolicyError
from vgicmgr.findings import Finding, Severity, Verdict
from vgicmgr.policy import DEFAULT, FINDINGS, MAX_BYTES, Decision, Mode, Policy, parse_policy, read_policy

NO_GIC = Finding("gic-version-unsupported", Severity.ERROR, "no GICv2 here")
NO_PMU = Finding("pmu-unsupported", Severity.ERROR, "no PMU here")
OLD = Finding("kernel-old", Severity.WARNING, "an old kernel")
NOTE = Finding("by-the-way", Severity.NOTE, "this host has 4 CPUs")
VERDICT = Verdict((NO_GIC, NO_PMU, OLD, NOTE))

SHIPPED = Path(__file__).parents[2] / "packaging/vgicmgr.conf"


class TestDecide:
    """Errors refuse, warnings are logged, notes are neither."""

    def test_enforce(self) -> None:
        assert DEFAULT.decide(VERDICT) == Decision(refused=(NO_GIC, NO_PMU), warned=(OLD,))

    def test_warn(self) -> None:
        assert Policy(Mode.WARN, {}).decide(VERDICT) == Decision(refused=(), warned=(NO_GIC, NO_PMU, OLD))

    def test_off(self) -> None:
        assert Policy(Mode.OFF, {}).decide(VERDICT) == Decision(refused=(), warned=())

    def test_one_finding_less_strict_than_the_rest(self) -> None:
        policy = Policy(Mode.ENFORCE, {"pmu-unsupported": Mode.WARN, "kernel-old": Mode.OFF})
        assert policy.decide(VERDICT) == Decision(refused=(NO_GIC,), warned=(NO_PMU,))

    def test_one_finding_stricter_than_the_rest(self) -> None:
        policy = Policy(Mode.WARN, {"pmu-unsupported": Mode.ENFORCE})
        assert policy.decide(VERDICT) == Decision(refused=(NO_PMU,), warned=(NO_GIC, OLD))

    def test_a_warning_refuses_where_it_is_named_alone(self) -> None:
        assert Policy(Mode.ENFORCE, {}).decide(Verdict((OLD,))).refused == ()
        assert Policy(Mode.ENFORCE, {"kernel-old": Mode.ENFORCE}).decide(Verdict((OLD,))).refused == (OLD,)

    def test_nothing_found(self) -> None:
        assert DEFAULT.decide(Verdict()) == Decision((), ())


class TestParse:
    """The words of the file."""

    def test_empty_is_the_default(self) -> None:
        assert parse_policy("") == Policy(Mode.ENFORCE, {})

    def test_the_shipped_file_says_the_default(self) -> None:
        assert parse_policy(SHIPPED.read_text()) == DEFAULT

    def test_the_shipped_file_with_its_examples_uncommented(self) -> None:
        text = re.sub(r"^#([a-z-]+ = )", r"\1", SHIPPED.read_text(), flags=re.MULTILINE)
        assert parse_policy(text).findings["pmu-unsupported"] is Mode.WARN

    def test_mode_and_findings(self) -> None:
        text = "[hook]\nmode = warn\n; as you like\n[findings]\nvcpu-count=enforce\nipa-size = off\n"
        assert parse_policy(text) == Policy(Mode.WARN, {"vcpu-count": Mode.ENFORCE, "ipa-size": Mode.OFF})

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("[hooks]\nmode = warn", "unknown section [hooks]"),
            ("[DEFAULT]\nmode = warn", "unknown section [DEFAULT]"),
            ("[hook]\nMode = warn", "unknown key 'Mode' in [hook]"),
            ("[hook]\nmode = Warn", "'mode' is 'Warn', but must be enforce, warn or off"),
            ("[hook]\nmode =", "'mode' is '', but must be"),
            ("[hook]\nmode = %(x)s", "'mode' is '%(x)s', but must be"),
            ("[hook]\nmode = warn # for now", "'mode' is 'warn # for now', but must be"),
            ("[findings]\nvcpu_count = warn", "'vcpu_count' is no finding's name"),
            ("[findings]\nvcpu-count = maybe", "'vcpu-count' is 'maybe', but must be"),
            ("[hook]\nmode = warn\nmode = off", "already exists"),
            ("[hook]\nmode = warn\n[hook]\n", "already exists"),
            ("mode = warn", "no section headers"),
            ("[hook]\nmode", "parsing errors"),
        ],
    )
    def test_anything_unknown_is_refused(self, text: str, why: str) -> None:
        with pytest.raises(PolicyError) as caught:
            parse_policy(text)
        assert why in caught.value.message
        assert "\n" not in caught.value.message

    @given(st.text() | st.lists(st.sampled_from(["[hook]", "[findings]", "mode", "=", "warn", "\n", " ", "#", "a-b"])))
    @example("[]")
    @example("[hook]\n mode = warn\n  off")
    def test_arbitrary_text(self, text: str | list[str]) -> None:
        with suppress(PolicyError):
            parse_policy(text if isinstance(text, str) else "".join(text))

    @given(
        st.sampled_from(Mode),
        st.dictionaries(
            st.from_regex(r"[a-z0-9]+(-[a-z0-9]+){0,3}", fullmatch=True), st.sampled_from(Mode), max_size=5
        ),
    )
    def test_what_is_written_is_read(self, mode: Mode, findings: dict[str, Mode]) -> None:
        lines = [f"{name} = {mode.value}" for name, mode in findings.items()]
        text = "\n".join(["[hook]", f"mode = {mode.value}", "[findings]", *lines])
        assert parse_policy(text) == Policy(mode, findings)


class TestRead:
    """The file itself."""

    def test_no_file_is_enforce(self, tmp_path: Path) -> None:
        assert read_policy(str(tmp_path / "vgicmgr.conf")) == Policy(Mode.ENFORCE, {})

    def test_file(self, tmp_path: Path) -> None:
        (tmp_path / "vgicmgr.conf").write_text("[hook]\nmode = off\n")
        assert read_policy(str(tmp_path / "vgicmgr.conf")) == Policy(Mode.OFF, {})

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"[hook]\nmode = \xff", "is not UTF-8 text"),
            (b"#" * (MAX_BYTES + 1), "is larger than 1 MiB"),
            (b"[hook]\nmode = x", "cannot be understood: 'mode' is 'x'"),
        ],
    )
    def test_bad_content_is_told_with_the_path(self, tmp_path: Path, content: bytes, why: str) -> None:
        path = tmp_path / "vgicmgr.conf"
        path.write_bytes(content)
        with pytest.raises(PolicyError) as caught:
            read_policy(str(path))
        assert f"the policy {path} {why}" in caught.value.message

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(PolicyError, match="is not a regular file"):
            read_policy(str(tmp_path))

    def test_fifo_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "vgicmgr.conf")
        with pytest.raises(PolicyError, match="is not a regular file"):
            read_policy(str(tmp_path / "vgicmgr.conf"))

    def test_the_error_carries_why_it_could_not_be_opened(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(PolicyError, match="Not a directory") as caught:
            read_policy(str(tmp_path / "file/vgicmgr.conf"))
        assert isinstance(caught.value.__cause__, NotADirectoryError)


def test_the_policy_file_shows_every_finding_that_refuses_a_start_or_bears_on_an_arrival() -> None:
    package = Path(__file__).parents[2] / "vgicmgr"
    start, arrival = ((package / name).read_text() for name in ("vgic/start.py", "abi/arrival.py"))
    names = set(re.findall(r'_refusal\(\s*"([a-z0-9-]+)"', start))
    names |= set(re.findall(r'Finding\(\s*"([a-z0-9-]+)"', arrival))
    assigned = set(re.findall(r'Finding\(\s*"([a-z0-9-]+)"', (package / "vgic/assignment.py").read_text()))
    names |= assigned - {"its-save"}  # which is for the host that a guest leaves
    names |= set(re.findall(r'"([a-z]+-refused)"', (package / "vgic/rehearsal.py").read_text()))
    shown = set(re.findall(r"^#([a-z0-9-]+) = ", SHIPPED.read_text(), re.MULTILINE))
    assert names == shown == FINDINGS
