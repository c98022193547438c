"""Tables for the terminal: what the other rooms find, in numbers first and then in words."""
