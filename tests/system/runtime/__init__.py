"""Moved to tests.kit.runtime."""

from tests.kit.runtime import *  # noqa: F403
