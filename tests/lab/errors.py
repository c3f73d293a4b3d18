"""The exceptions of the lab.

::

    LabError                anything the lab raises on purpose
     ├── Prerequisite       a program or a CPU model this machine lacks: the test is skipped, aloud
     ├── BuildError         packages, a root, a kernel or an image could not be built
     ├── HostDied           QEMU ended, or the host's kernel panicked; carries the console's end
     ├── HostHung           the host did not answer in time; carries the console's end
     ├── CommandFailed      a command in the host ended with another exit code than 0 (``check=True``)
     └── CommandTimeout     a command in the host ran too long and was killed there
"""


class LabError(Exception):
    """Base of everything the lab raises on purpose."""


class Prerequisite(LabError):
    """This machine lacks what the lab needs; the message says what to install."""


class BuildError(LabError):
    """Something of a host could not be built."""


class HostDied(LabError):
    """The host is gone: its QEMU ended or its kernel said that it cannot go on."""


class HostHung(LabError):
    """The host did not answer in time."""


class CommandFailed(LabError):
    """A command in the host ended with an exit code other than 0."""


class CommandTimeout(LabError):
    """A command in the host ran longer than it may, and was killed."""
