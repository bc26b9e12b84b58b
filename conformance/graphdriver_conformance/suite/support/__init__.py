"""Parts that several tests of the suite share."""
