"""Models of other frameworks behind the contract of flat models: one file each, and what all of them share."""
