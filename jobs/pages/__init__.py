"""What the pages that commands write have in common: colours, pictures, and HTML that needs no other file."""
