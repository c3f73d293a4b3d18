"""Stand-ins that keep to the rules of what they stand in for."""
