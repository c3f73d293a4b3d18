"""The JSON document against its schema, which is the contract with other programs."""

import json

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.unit.host.examples import BARE, GICV2_ONLY, ROOMY
from vgicmgr.host.capabilities import HostCapabilities
from vgicmgr.host.document import SCHEMA, to_document
from vgicmgr.host.judge import judge_host

VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text()))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("host", [ROOMY, GICV2_ONLY, BARE])
def test_every_document_meets_the_schema(host: HostCapabilities) -> None:
    VALIDATOR.validate(json.loads(json.dumps(to_document(host, judge_host(host)))))


@pytest.mark.parametrize("member", to_document(ROOMY, judge_host(ROOMY)))
def test_the_schema_misses_every_member_that_is_left_out(member: str) -> None:
    document = to_document(ROOMY, judge_host(ROOMY))
    del document[member]
    with pytest.raises(ValidationError):
        VALIDATOR.validate(document)


def test_registers_are_hexadecimal_strings() -> None:
    document = to_document(ROOMY, judge_host(ROOMY))
    assert document["its"]["gits_typer"] == "0x1ef71"
    assert document["host"]["core_types"] == [{"midr_el1": "0x413fd0c1", "cpus": [0, 1, 3]}]
