"""Measurements, each beside the machine's own limit and the peers, in one run: ``make bench``."""
