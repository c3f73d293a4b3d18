"""libvirt domain XML: what a domain asks for."""
