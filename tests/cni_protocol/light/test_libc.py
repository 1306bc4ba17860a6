"""The system calls through ctypes: 0 for success, and the errno of this very call."""

import errno
import os

from cni_protocol.light.libc import PR_SET_PDEATHSIG, prctl, setns


def test_a_call_that_succeeds_gives_0_whatever_failed_before() -> None:
    assert setns(-1, 0) == errno.EBADF
    assert prctl(PR_SET_PDEATHSIG, 0) == 0


def test_a_call_that_fails_gives_its_errno() -> None:
    with open(os.devnull) as no_namespace:
        assert setns(no_namespace.fileno(), 0) == errno.EINVAL
    assert prctl(-1, 0) == errno.EINVAL
