"""What runs in the process of a call: it reads the request, calls the function, writes the answer."""
