"""Moved to tests.kit.frames."""

from tests.kit.frames import *  # noqa: F403
