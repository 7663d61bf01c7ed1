"""Training on images: what learners and the method share."""
