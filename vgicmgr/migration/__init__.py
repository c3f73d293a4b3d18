"""What a guest was booted with and can see: its ABI record, and whether another kernel can give it the same."""
