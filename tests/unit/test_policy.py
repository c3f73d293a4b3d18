"""The policy file, and what a policy makes of a verdict."""

import configparser
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vgicmgr.errors import PolicyError
from vgicmgr.findings import Finding, Severity, Verdict, finding
from vgicmgr.policy import DEFAULT, FINDINGS, MAX_BYTES, Decision, Mode, Policy, parse_policy, read_policy

NO_GIC = Finding("gic-version-unsupported", Severity.ERROR, "no GICv2 here")
NO_PMU = Finding("pmu-unsupported", Severity.ERROR, "no PMU here")
MIXED = Finding("cpu-types-mixed", Severity.WARNING, "cores of two types")
NOTE = Finding("gits-typer", Severity.NOTE, "GITS_TYPER differs in a reserved bit")
VERDICT = Verdict((NO_GIC, NO_PMU, MIXED, NOTE))

SHIPPED = Path(__file__).parents[2] / "packaging/vgicmgr.conf"

FRAGMENTS = [
    "[hook]",
    "[findings]",
    "[",
    "]",
    "mode",
    "=",
    "warn",
    "off",
    "#",
    ";",
    "a-b",
    "its",
    "mode = warn\n",
    "\r",
]


def by_configparser(text: str) -> Policy | None:
    """The policy as configparser reads it, or None for what it or vgicmgr refuses."""
    parser = configparser.RawConfigParser(delimiters=("=",), default_section="", empty_lines_in_values=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
        if not {"hook", "findings"}.issuperset(parser.sections()):
            return None
        read = {section: {key: Mode(value) for key, value in parser.items(section)} for section in parser.sections()}
    except (configparser.Error, ValueError):
        return None
    hook, findings = read.get("hook", {}), read.get("findings", {})
    if hook.keys() - {"mode"} or not all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name) for name in findings):
        return None
    return Policy(hook.get("mode", Mode.ENFORCE), findings)


class TestDecide:
    """Errors refuse, warnings are logged, notes are neither."""

    def test_enforce(self) -> None:
        assert DEFAULT.decide(VERDICT) == Decision(refused=(NO_GIC, NO_PMU), warned=(MIXED,))

    def test_warn(self) -> None:
        assert Policy(Mode.WARN, {}).decide(VERDICT) == Decision(refused=(), warned=(NO_GIC, NO_PMU, MIXED))

    def test_off(self) -> None:
        assert Policy(Mode.OFF, {}).decide(VERDICT) == Decision(refused=(), warned=())

    def test_one_finding_less_strict_than_the_rest(self) -> None:
        policy = Policy(Mode.ENFORCE, {"pmu-unsupported": Mode.WARN, "cpu-types-mixed": Mode.OFF})
        assert policy.decide(VERDICT) == Decision(refused=(NO_GIC,), warned=(NO_PMU,))

    def test_one_finding_stricter_than_the_rest(self) -> None:
        policy = Policy(Mode.WARN, {"pmu-unsupported": Mode.ENFORCE})
        assert policy.decide(VERDICT) == Decision(refused=(NO_PMU,), warned=(NO_GIC, MIXED))

    def test_a_warning_refuses_where_it_is_named_alone(self) -> None:
        assert Policy(Mode.ENFORCE, {}).decide(Verdict((MIXED,))).refused == ()
        assert Policy(Mode.ENFORCE, {"cpu-types-mixed": Mode.ENFORCE}).decide(Verdict((MIXED,))).refused == (MIXED,)

    def test_nothing_found(self) -> None:
        assert DEFAULT.decide(Verdict()) == Decision((), ())


class TestParse:
    """The words of the file."""

    def test_empty_is_the_default(self) -> None:
        assert parse_policy("") == Policy(Mode.ENFORCE, {})

    def test_the_shipped_file_says_the_default(self) -> None:
        assert parse_policy(SHIPPED.read_text()) == DEFAULT

    def test_the_shipped_file_shows_what_is_done_by_default(self) -> None:
        text = re.sub(r"^#([a-z0-9-]+ = )", r"\1", SHIPPED.read_text(), flags=re.MULTILINE)
        shown = parse_policy(text)
        assert shown.findings.keys() == FINDINGS
        for name in FINDINGS:
            verdict = Verdict((finding(name, "as it is"),))
            assert shown.decide(verdict) == DEFAULT.decide(verdict), name

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
            ("[hook]\nmode = warn\nmode = off", "'mode' is there twice (line 3)"),
            ("[findings]\nits = warn\n[hook]\n\n[findings]\n", "[findings] is there twice (line 5)"),
            ("# a comment\nmode = warn", "line 2 stands before any [section]"),
            ("[hook]\nmode", "line 2 is none of a [section], a comment and 'name = value'"),
            ("[hook]\nmode: warn", "line 2 is none of"),
            ("[hook]\n= warn", "line 2 is none of"),
            ("[]\nmode = warn", "line 1 is none of"),
            ("[hook]\nmode = warn\n  off", "line 3 is indented"),
            ("[findings]\nits = warn\n  vcpu-count = off", "line 3 is indented"),
            ("[findings]\n-its = warn", "'-its' is no finding's name"),
            ("[findings]\nits\u00b2 = warn", "is no finding's name"),
            ("[hook]\nmode = \x1b[31m" + "x" * 5000, "'mode' is '\\x1b[31mxxx"),
        ],
    )
    def test_anything_unknown_is_refused(self, text: str, why: str) -> None:
        with pytest.raises(PolicyError) as caught:
            parse_policy(text)
        assert why in caught.value.message
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 200

    def test_garbage_ends_at_its_first_line(self) -> None:
        """configparser collects what is wrong with every line: 100 kB took 5 s, at each guest's start."""
        with pytest.raises(PolicyError, match="line 2 is none of"):
            parse_policy("[hook]\n" + "x\n" * (MAX_BYTES // 2))

    @pytest.mark.parametrize(
        "text",
        [
            "[hook] # for now\n  mode=warn  \n",
            "\t[hook]\r\nmode = warn\r\n",
            "  # indented\n[findings]\n\n[hook]\n\n    mode = warn\n",
            "[hook]\n  mode = warn\n[findings]\n",
        ],
    )
    def test_forms_of_the_same(self, text: str) -> None:
        assert parse_policy(text) == Policy(Mode.WARN, {})

    def test_indentation_means_nothing_after_a_comment_or_an_empty_line(self) -> None:
        text = "[findings]\nits = warn\n\n  vcpu-count = off\n; why\n    ipa-size = off\n  pmu-off = off\n"
        assert parse_policy(text).findings.keys() == {"its", "vcpu-count", "ipa-size", "pmu-off"}

    @given(st.lists(st.sampled_from([*FRAGMENTS, "\n", " "])).map("".join))
    @example("[hook] mode = warn\n[findings]")
    @example("[hook]\nmode = warn\n[hook]")
    @example("[a]b] = warn")
    def test_it_takes_what_configparser_takes(self, text: str) -> None:
        """Which read the policy before."""
        expected = by_configparser(text)
        try:
            policy: Policy | None = parse_policy(text)
        except PolicyError:
            policy = None
        assert policy == expected

    def test_a_former_name_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vgicmgr.policy.FORMER", {"many-vcpus": "vcpu-count"})
        assert parse_policy("[findings]\nmany-vcpus = off").findings == {"vcpu-count": Mode.OFF}
        for lines in ("vcpu-count = warn\nmany-vcpus = off", "many-vcpus = off\nvcpu-count = warn"):
            assert parse_policy(f"[findings]\n{lines}").findings == {"vcpu-count": Mode.WARN}

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
            (b"#" * (MAX_BYTES + 1), "is larger than 64 KiB"),
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
