"""Costs of completions, and the budgets that they are charged to."""
