"""The proof of the gate: real migrations between emulated hosts, and what vgicmgr said of each beforehand."""
