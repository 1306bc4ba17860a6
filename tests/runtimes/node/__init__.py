"""Moved to tests.kit.node."""

from tests.kit.node import *  # noqa: F403
