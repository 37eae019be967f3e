"""Lists whose passages differ by one small edit that changes the answer: negation, opposites, numbers, roles."""
