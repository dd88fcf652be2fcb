"""What was asked (the recipe), on which machine, and what will be done about it (the plan)."""
