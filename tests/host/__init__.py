"""Moved to tests.kit.host."""

from tests.kit.host import *  # noqa: F403
