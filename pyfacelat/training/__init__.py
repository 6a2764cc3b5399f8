"""Training of the sample models: one loop, one optimiser, a stage for each net."""
