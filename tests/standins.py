"""Moved to tests.kit.standins."""

from tests.kit.standins import *  # noqa: F403
