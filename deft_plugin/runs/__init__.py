"""What selectors share: features, folds, neighbours, a linear classifier, each computed once."""
