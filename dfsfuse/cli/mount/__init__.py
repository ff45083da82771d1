"""The command `dfsmount`, the helpers of mount(8) and umount(8), and the process of a mount."""
