"""Experiments that do to the system what networks, disks and signals do, and judge what was delivered."""
