"""HTTP: what is asked, what is answered, and errors."""
