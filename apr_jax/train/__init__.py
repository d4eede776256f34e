"""Training: the plan, the loop, the step, and what is followed meanwhile."""
