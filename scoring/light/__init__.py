"""Light CLIP: two small heads that bring features of a detector and the words of a caption into one space."""
