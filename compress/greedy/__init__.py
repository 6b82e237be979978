"""Greedy imitation: which channels stay, and by how much they are scaled. `docs/methods/greedy_imitation.md`."""
