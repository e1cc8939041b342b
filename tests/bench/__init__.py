"""Speed and memory against other ways of doing the same work: `make bench`. Nothing here is a test."""
