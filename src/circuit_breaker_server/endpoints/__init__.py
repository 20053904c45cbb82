"""Doors of the server: one package for each protocol through which clients come in."""
