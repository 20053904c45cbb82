"""Language models: providers, and the completions that they stream."""
