"""What completions cost, and the budgets they are charged to."""
