"""Networks that name masklets: classifiers of pooled features, and the learned fusion with base labels."""
