"""Speed that can be believed: clocks, paired comparisons, and histories that tell a step from noise."""
