"""For tests of what is built on Hostler: doubles, and the suites that every adapter passes."""
