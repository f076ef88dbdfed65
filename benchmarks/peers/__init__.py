"""What each library can do, claim by claim, with a check of every claim."""
