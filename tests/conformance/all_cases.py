"""Importing this module registers every case."""

from __future__ import annotations

from conformance import (
    cases_attributes,
    cases_data,
    cases_folders,
    cases_kernel,
    cases_limits,
    cases_links,
    cases_permissions,
    cases_tree,
)
from conformance.registry import CASES

__all__ = [
    "CASES",
    "cases_attributes",
    "cases_data",
    "cases_folders",
    "cases_kernel",
    "cases_limits",
    "cases_links",
    "cases_permissions",
    "cases_tree",
]
