"""Models side by side on one data set: only those that conform are ranked."""
