"""Reading what users have: folders, Hugging Face and torch data sets, images, labels."""
