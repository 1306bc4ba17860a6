"""Recognizing file systems that several hosts share. Reservations on one would mix those of all hosts.

Must not: read anything but the list of mounts.
"""

from cni_protocol.light.system import os

# As in the list of mounts. Locks, inode numbers and hard links are not the same on all of their hosts at once.
_SHARED = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "coda", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2"),
    *("gfs2", "ocfs2", "9p", "virtiofs", "vboxsf", "vmhgfs", "prl_fs", "fuse.vmhgfs-fuse"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.moosefs", "fuse.mfs", "fuse.juicefs"),
    *("fuse.s3fs", "fuse.goofys", "fuse.rclone", "fuse.nfs", "fuse.davfs2"),
}
_MOUNTS = "/proc/self/mountinfo"
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))  # proc_pid_mountinfo(5)


def find_shared_filesystem(path: str) -> str:
    """The type of a path's file system if several hosts may share it; "" if not, or if the type is not known."""
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            mounts = file.read()
    except OSError:
        return ""
    kind = parse_mounts(mounts, _find_real_path(path))
    return kind if kind in _SHARED else ""


def _find_real_path(path: str) -> str:
    """A path without symbolic links, as far as it is there; as it is where it cannot be opened.

    Not realpath: to load that takes longer than all the rest of the first ADD.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            path = os.path.dirname(path) or "/"
            continue
        except OSError:
            return path
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)


def parse_mounts(mounts: str, path: str) -> str:
    """The type of the file system that an absolute path lies on.

    `mounts` is the text of mountinfo. The longest mount point above the path counts; of several equal ones the last.
    """
    longest, found = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        if len(words) < 5 or not after:
            continue
        point = words[4]
        for escape, character in _ESCAPES:
            point = point.replace(escape, character)
        if len(point) >= longest and (path + "/").startswith(point.rstrip("/") + "/"):
            longest, found = len(point), after.partition(" ")[0]
    return found
