"""From the log to the sockets: plans, channels with their rings, places in them, one flush a turn."""
