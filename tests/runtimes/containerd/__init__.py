"""Moved to tests.kit.containerd."""

from tests.kit.containerd import *  # noqa: F403
