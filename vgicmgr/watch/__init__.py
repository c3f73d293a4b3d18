"""What ``vgicmgr watch`` shows: the gate's verdicts on guests, and what became of them."""
