"""`descend`: many descents at once, their schedules, and objectives of n variables."""
