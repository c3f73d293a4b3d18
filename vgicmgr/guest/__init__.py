"""The heart: what a domain asks for, against what a kernel gives."""
