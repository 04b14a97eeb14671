"""What both ends must agree on: serial readings, search keys, make and calibre tables, scoring, the decision."""
