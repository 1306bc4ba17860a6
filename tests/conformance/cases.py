"""All cases, by number. Importing the modules registers what is in them."""

from tests.conformance import (
    add_cases,
    check_cases,
    concurrency_cases,
    conventions_cases,
    delegation_cases,
    delete_cases,
    envelope_cases,
    gc_cases,
    status_cases,
    version_cases,
)
from tests.conformance.registry import CASES, Case

MODULES = (
    envelope_cases,
    add_cases,
    delete_cases,
    check_cases,
    status_cases,
    version_cases,
    gc_cases,
    concurrency_cases,
    delegation_cases,
    conventions_cases,
)


def list_cases() -> list[Case]:
    """Every case, in the order of the numbers."""
    return [CASES[number] for number in sorted(CASES)]
