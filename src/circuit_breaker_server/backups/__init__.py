"""Copies of a data directory: made while the server runs, checked, and put back."""
