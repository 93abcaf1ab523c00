"""The service: what travels on the wire, the client, the application, its deployment."""
