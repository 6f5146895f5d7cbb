"""What happened to a repository, in one vocabulary, and what follows from it. No I/O."""
