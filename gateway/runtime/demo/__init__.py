"""`tracewire demo`: a directory and five members on loopback, and 635 real traced guns (guns.csv, credited in NOTICE)."""
