"""Delivery: from a message of the server to the typed event that the application gets, in order, once."""
