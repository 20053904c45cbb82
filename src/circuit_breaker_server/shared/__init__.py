"""The bucket on JetStream that all nodes of a cluster share, beside the event log. Needs ``cluster``."""
