"""Numbers of system calls, by architecture: the tables of the Linux kernel.

aarch64 has the kernel's generic table, in which old calls such as ``fork`` are missing.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Numbers(NamedTuple):
    """Numbers of one system call; None where the architecture has none."""

    x86_64: int | None
    aarch64: int | None


def _same(number: int) -> Numbers:
    """Return a number of a call that is newer than Linux 5.1: it is the same everywhere."""
    return Numbers(number, number)


SYSCALLS: Final[dict[str, Numbers]] = {
    "acct": Numbers(163, 89),
    "add_key": Numbers(248, 217),
    "adjtimex": Numbers(159, 171),
    "bpf": Numbers(321, 280),
    "chroot": Numbers(161, 51),
    "clock_adjtime": Numbers(305, 266),
    "clock_settime": Numbers(227, 112),
    "clone": Numbers(56, 220),
    "clone3": _same(435),
    "delete_module": Numbers(176, 106),
    "execve": Numbers(59, 221),
    "execveat": Numbers(322, 281),
    "fanotify_init": Numbers(300, 262),
    "finit_module": Numbers(313, 273),
    "fork": Numbers(57, None),
    "fsconfig": _same(431),
    "fsmount": _same(432),
    "fsopen": _same(430),
    "fspick": _same(433),
    "init_module": Numbers(175, 105),
    "io_uring_enter": _same(426),
    "io_uring_register": _same(427),
    "io_uring_setup": _same(425),
    "ioctl": Numbers(16, 29),
    "ioperm": Numbers(173, None),
    "iopl": Numbers(172, None),
    "ioprio_set": Numbers(251, 30),
    "kcmp": Numbers(312, 272),
    "kexec_file_load": Numbers(320, 294),
    "kexec_load": Numbers(246, 104),
    "keyctl": Numbers(250, 219),
    "kill": Numbers(62, 129),
    "migrate_pages": Numbers(256, 238),
    "modify_ldt": Numbers(154, None),
    "mount": Numbers(165, 40),
    "mount_setattr": _same(442),
    "move_mount": _same(429),
    "move_pages": Numbers(279, 239),
    "mq_open": Numbers(240, 180),
    "mq_unlink": Numbers(241, 181),
    "msgctl": Numbers(71, 187),
    "msgget": Numbers(68, 186),
    "msgrcv": Numbers(70, 188),
    "msgsnd": Numbers(69, 189),
    "name_to_handle_at": Numbers(303, 264),
    "open_by_handle_at": Numbers(304, 265),
    "open_tree": _same(428),
    "perf_event_open": Numbers(298, 241),
    "personality": Numbers(135, 92),
    "pidfd_getfd": _same(438),
    "pidfd_send_signal": _same(424),
    "pivot_root": Numbers(155, 41),
    "prlimit64": Numbers(302, 261),
    "process_madvise": _same(440),
    "process_mrelease": _same(448),
    "process_vm_readv": Numbers(310, 270),
    "process_vm_writev": Numbers(311, 271),
    "ptrace": Numbers(101, 117),
    "quotactl": Numbers(179, 60),
    "quotactl_fd": _same(443),
    "reboot": Numbers(169, 142),
    "request_key": Numbers(249, 218),
    "rt_sigqueueinfo": Numbers(129, 138),
    "rt_tgsigqueueinfo": Numbers(297, 240),
    "sched_setaffinity": Numbers(203, 122),
    "sched_setattr": Numbers(314, 274),
    "sched_setparam": Numbers(142, 118),
    "sched_setscheduler": Numbers(144, 119),
    "semctl": Numbers(66, 191),
    "semget": Numbers(64, 190),
    "semop": Numbers(65, 193),
    "semtimedop": Numbers(220, 192),
    "sendmmsg": Numbers(307, 269),
    "sendmsg": Numbers(46, 211),
    "sendto": Numbers(44, 206),
    "setdomainname": Numbers(171, 162),
    "sethostname": Numbers(170, 161),
    "setns": Numbers(308, 268),
    "setpriority": Numbers(141, 140),
    "setrlimit": Numbers(160, 164),
    "settimeofday": Numbers(164, 170),
    "shmat": Numbers(30, 196),
    "shmctl": Numbers(31, 195),
    "shmget": Numbers(29, 194),
    "socket": Numbers(41, 198),
    "socketpair": Numbers(53, 199),
    "swapoff": Numbers(168, 225),
    "swapon": Numbers(167, 224),
    "syslog": Numbers(103, 116),
    "tgkill": Numbers(234, 131),
    "tkill": Numbers(200, 130),
    "umount2": Numbers(166, 39),
    "unshare": Numbers(272, 97),
    "userfaultfd": Numbers(323, 282),
    "vfork": Numbers(58, None),
    "vhangup": Numbers(153, 58),
}
