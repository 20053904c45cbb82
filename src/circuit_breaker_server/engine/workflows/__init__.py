"""Workflows, their states, and the resources that go through them."""
