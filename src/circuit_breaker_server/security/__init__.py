"""Who asks: bearer tokens, what they say, and how long they hold."""
