"""The nodes of a cluster: who they are, which of them live, and who owns which work."""
