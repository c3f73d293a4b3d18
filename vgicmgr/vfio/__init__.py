"""VFIO's user-space interface, and what sysfs says of the devices that can be assigned to a guest.

Sources: the kernel's ``include/uapi/linux/vfio.h``, ``Documentation/driver-api/vfio.rst`` and
``Documentation/userspace-api/iommufd.rst``.
"""
