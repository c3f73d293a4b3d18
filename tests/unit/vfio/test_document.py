"""The JSON document against its schema, which is the contract with other programs."""

import json

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.unit.vfio.examples import EMPTY, FULL
from vgicmgr.vfio.document import SCHEMA, to_document
from vgicmgr.vfio.inventory import Inventory
from vgicmgr.vfio.judge import judge_inventory

VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text()))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("inventory", [FULL, EMPTY])
def test_every_document_meets_the_schema(inventory: Inventory) -> None:
    VALIDATOR.validate(json.loads(json.dumps(to_document(inventory, judge_inventory(inventory)))))


@pytest.mark.parametrize("member", to_document(FULL, judge_inventory(FULL)))
def test_the_schema_misses_every_member_that_is_left_out(member: str) -> None:
    document = to_document(FULL, judge_inventory(FULL))
    del document[member]
    with pytest.raises(ValidationError):
        VALIDATOR.validate(document)


@pytest.mark.parametrize("member", to_document(FULL, judge_inventory(FULL))["devices"][0])
def test_the_schema_misses_every_member_of_a_device(member: str) -> None:
    document = to_document(FULL, judge_inventory(FULL))
    del document["devices"][0][member]
    with pytest.raises(ValidationError):
        VALIDATOR.validate(document)


def test_sizes_are_hexadecimal_strings_and_counts_are_numbers() -> None:
    device = to_document(FULL, judge_inventory(FULL))["devices"][0]
    assert device["info"]["regions"][2] == {
        "index": 7,
        "name": "config",
        "size": "0x1000",
        "offset": "0x70000000000",
        "flags": ["read", "write"],
        "sparse_mmap": None,
        "msix_mappable": False,
        "type": None,
    }
    assert device["interrupts"] == {"lines": 0, "msi": 0, "msix": 64}
