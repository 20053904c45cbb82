"""The costs of completions, and the budgets to which they are charged."""
