"""What was found: verdicts, files, masks, columns, reviews, rankings."""
