"""Moved to tests.kit.image."""

from tests.kit.image import *  # noqa: F403
