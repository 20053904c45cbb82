"""What a caller may see and do: rules for every root field, by the rights of this moment."""
