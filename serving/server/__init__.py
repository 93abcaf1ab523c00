"""The server: the HTTP application, what guards and measures it, and Ray Serve around it."""
