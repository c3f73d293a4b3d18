/*
 * An LD_PRELOAD library that writes down the KVM ioctls of a program, and passes each on to the kernel.
 *
 * One line a call, to the file named by KVM_TRACE: file descriptor, request, return value, errno, the argument (the
 * number itself, or the structure's bytes in hex as they were before the call), and for an attribute or register that
 * is set what the structure points to (of a file descriptor for KVM's VFIO device, the file). Only what sets a VM up is written: no KVM_RUN, and of the registers none but
 * KVM_REG_ARM64_SVE_VLS.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static char is_vm[4096], is_vfio[4096];

static int sets_up(int fd, unsigned long request, const void *argument)
{
    switch (request) {
    case KVM_ARM_SET_DEVICE_ADDR: /* on a vCPU, the same number is KVM_GET_ONE_REG */
        return fd < (int)sizeof(is_vm) && is_vm[fd];
    case KVM_SET_ONE_REG:
        return ((const struct kvm_one_reg *)argument)->id == KVM_REG_ARM64_SVE_VLS;
    case KVM_CREATE_VM:
    case KVM_CREATE_VCPU:
    case KVM_CREATE_IRQCHIP:
    case KVM_CREATE_DEVICE:
    case KVM_ENABLE_CAP:
    case KVM_ARM_PREFERRED_TARGET:
    case KVM_ARM_VCPU_INIT:
    case KVM_ARM_VCPU_FINALIZE:
    case KVM_HAS_DEVICE_ATTR:
    case KVM_SET_DEVICE_ATTR:
        return 1;
    }
    return 0;
}

static char *hex(char *to, const void *from, size_t length)
{
    const unsigned char *bytes = from;

    for (size_t i = 0; i < length; i++)
        to += sprintf(to, "%02x", bytes[i]);
    return to;
}

/* The file that a VFIO device is told of by its descriptor. */
static char *file_of(char *to, int fd)
{
    char link[64], path[64];

    sprintf(link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path));
    return hex(to, path, length < 0 ? 0 : length);
}

/* What the structure's 'addr' points to; an attribute may have fewer bytes than the eight that are shown. */
static char *pointed_to(char *to, int fd, unsigned long request, const void *argument)
{
    if (request == KVM_SET_DEVICE_ATTR) {
        const struct kvm_device_attr *attribute = argument;

        if (fd < (int)sizeof(is_vfio) && is_vfio[fd])
            return file_of(to, *(const int *)attribute->addr);
        if (attribute->addr)
            return hex(to, (const void *)attribute->addr, 8);
    } else if (request == KVM_SET_ONE_REG) {
        const struct kvm_one_reg *reg = argument;

        return hex(to, (const void *)reg->addr, 1UL << ((reg->id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT));
    }
    *to++ = '-';
    return to;
}

int ioctl(int fd, unsigned long request, ...)
{
    char line[1024], *end = line;
    const char *path = getenv("KVM_TRACE");
    va_list arguments;
    long argument;
    int result, error, log;

    va_start(arguments, request);
    argument = va_arg(arguments, long);
    va_end(arguments);

    request &= 0xffffffff;
    if (!path || _IOC_TYPE(request) != KVMIO || !sets_up(fd, request, (const void *)argument))
        return syscall(SYS_ioctl, fd, request, argument);

    char before[512], *b = before;
    if (_IOC_DIR(request) == _IOC_NONE)
        b += sprintf(b, "%#lx", argument);
    else
        b = hex(b, (const void *)argument, _IOC_SIZE(request));
    *b++ = ' ';
    *pointed_to(b, fd, request, (const void *)argument) = '\0';

    result = syscall(SYS_ioctl, fd, request, argument);
    error = errno;

    int created = result;
    if (request == KVM_CREATE_VM && result >= 0 && result < (int)sizeof(is_vm))
        is_vm[result] = 1;
    if (request == KVM_CREATE_VCPU && result >= 0 && result < (int)sizeof(is_vm))
        is_vm[result] = 0;
    if (request == KVM_CREATE_DEVICE && result == 0) {
        const struct kvm_create_device *device = (const void *)argument;

        created = device->fd;
        if (created >= 0 && created < (int)sizeof(is_vfio))
            is_vfio[created] = device->type == KVM_DEV_TYPE_VFIO;
    }
    end += sprintf(end, "%d %#lx %d %d %s\n", fd, request, created, result < 0 ? error : 0, before);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log < 0 || write(log, line, end - line) != end - line)
        abort();
    close(log);
    errno = error;
    return result;
}
