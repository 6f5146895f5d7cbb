"""What knows how deploy platforms are called and what they answer."""
