"""Endpoints of the server: one package for each protocol that clients use."""
