"""Balance: recipe, cells, solver, planner, transforms, render."""
