"""Other frameworks behind scaleml's contracts, one file each, and what all of them share; none is imported before it is needed."""
