"""vgicmgr: judge, before it costs anything, whether an arm64 KVM guest can start or migrate here."""
